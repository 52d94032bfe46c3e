"""The worker's half of Stretto: session machine, runtime, executors, task context."""
