"""Output schemas through the command, a real suite behind it."""

from __future__ import annotations

import json

from stretto_cli.exits import ExitStatus

from tests.e2e.conftest import Suite, json_of

EVEN = {"type": "object", "properties": {"even": {"const": True}}, "required": ["even"]}


def plan(text: str, schema: object, **rest: object) -> str:
    task = {
        "name": "say",
        "executor": "process",
        "arguments": {"argv": ["echo", text], "output": "json"},
        "output_schema": schema,
        "retry": {"max_attempts": 1},
    }
    return json.dumps({"tasks": [task], "output": {"from": "task", "task": "say"}, **rest})


def test_a_result_and_an_output_hold_to_their_schemas_or_fail(suite: Suite) -> None:
    good = json_of(suite.stretto("run", "-", "--json", stdin=plan('{"even": true}', EVEN)))
    assert (good["state"], good["output"]) == ("SUCCEEDED", {"even": True})

    bad = suite.stretto("run", "-", stdin=plan('{"even": 3}', EVEN))
    assert bad.returncode == ExitStatus.FAILED
    assert "OUTPUT_SCHEMA_VIOLATED in say" in bad.stderr and "/even" in bad.stderr

    text = plan('{"odd": 3}', {}, output_schema=EVEN)
    whole = suite.stretto("run", "-", stdin=text)
    assert whole.returncode == ExitStatus.FAILED
    assert "OUTPUT_SCHEMA_VIOLATED" in whole.stderr and "the run's output" in whole.stderr

    wrong = suite.stretto("run", "-", stdin=plan("1", {"$ref": "https://example.com/schema"}))
    assert wrong.returncode == ExitStatus.USAGE
    assert "tasks[0].output_schema" in wrong.stderr and "into this schema" in wrong.stderr
