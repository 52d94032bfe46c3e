"""A suite on this machine: its directory, its processes, and the process that keeps them alive."""
