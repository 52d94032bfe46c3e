"""The environment service (later): leases sandboxes, containers and browsers to attempts."""
