"""The public Python face: Client, Worker, task context."""
