"""The `http` executor: one request per attempt, over the wire and as an attempt."""
