"""What the services share: errors, clock, ids, the event log, RPC set-up, telemetry, test parts.

Importing this package loads nothing heavy; every adapter is imported by its own module name.
"""
