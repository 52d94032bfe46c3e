"""The `process` executor: commands as bodies, each in a process group that the reaper owns."""
