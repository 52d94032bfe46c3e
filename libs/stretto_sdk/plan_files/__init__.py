"""Plan files: their text with its places, their parameters and includes, and what is wrong in them.

`read.read_plan_file` is the way in. Everything here is pure but for the reading of files.
"""
