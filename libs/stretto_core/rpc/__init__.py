"""gRPC as every service and client of ours uses it; the only code that knows its status codes.

Handlers raise refusals (`stretto_core.errors`) and read `current_call()`; callers get the same
classes back. Importing this package loads nothing; each part is imported by its own module name.
"""
