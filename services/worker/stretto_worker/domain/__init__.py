"""The worker service's rules: what a process task's arguments mean, and what its exit means."""
