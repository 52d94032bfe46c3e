"""The application: one function per command, each of them load, decide, append, answer."""
