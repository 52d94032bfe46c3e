"""From the committed log to the bus: what other services and languages hear of."""
