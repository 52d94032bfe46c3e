"""Logs, metrics and trace context: what a service tells of itself, no payload, no secret."""
