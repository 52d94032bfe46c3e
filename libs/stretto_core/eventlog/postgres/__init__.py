"""The log in PostgreSQL, on the recorders of the eventsourcing library.

Import `postgres.log` for the adapter; importing this package alone loads no driver.
"""
