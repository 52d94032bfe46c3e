"""The kernel: records every state change, dispatches work, keeps timers."""
