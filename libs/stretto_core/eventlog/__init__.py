"""The event log: values, port, codec, hash chain, group writer and adapters.

The only importer of the eventsourcing library, and of psycopg for writing. Importing this package
loads no adapter.
"""
