"""Adapters of the kernel's own ports: the view tables and the dialing of workers."""
