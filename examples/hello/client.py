"""client.py: starts it and prints its result."""

from stretto_sdk import Plan, run_plan

plan = Plan("greeting")
hello = plan.task("hi", executor="python", function="greet", queue="mine", inputs={"who": "you"})
plan.output = hello.output()
print(run_plan(plan))
