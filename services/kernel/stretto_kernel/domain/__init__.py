"""Pure rules of the kernel: no clock, no randomness, no I/O; commands bring time and ids."""
