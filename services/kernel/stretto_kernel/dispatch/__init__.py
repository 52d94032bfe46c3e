"""Dispatch: which ready work item goes to which worker, and what the kernel says on a work stream.

The parts are pure (ready queues, lease table, session machine); `dispatcher.py` connects them with
the streams in memory and the log.
"""
