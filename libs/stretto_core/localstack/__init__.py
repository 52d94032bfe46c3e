"""The local stack: child processes under one supervisor, and an embedded PostgreSQL among them.

`child` is one process, `supervisor` keeps several alive in order, `postgres` prepares and describes
a real PostgreSQL, `readiness` holds probes, `status` the file others read. Nothing here speaks SQL.
"""
