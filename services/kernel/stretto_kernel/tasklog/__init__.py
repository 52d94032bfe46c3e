"""Task logs: what attempts write. Telemetry beside the record: nothing is ever decided on it."""
