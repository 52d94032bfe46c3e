"""greeter.py: a worker with one task."""

from stretto_sdk import Worker

worker = Worker(queues=["mine"])


@worker.task
async def greet(ctx, who):
    return f"hello, {who}"


worker.run()
