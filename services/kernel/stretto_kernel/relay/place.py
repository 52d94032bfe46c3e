"""Where the relay is: its name among the followers of the log. Loads nothing of the bus."""

RELAY = "relay_v1"
