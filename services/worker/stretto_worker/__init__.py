"""The worker: leases attempts from the kernel and executes them."""
