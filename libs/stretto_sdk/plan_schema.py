"""The JSON Schema of plan files, made of the shapes that read them: for editors, and for programs.

It tells what a reader tells of one field at a time; what lies between them (unknown tasks, cycles)
only `stretto validate` tells. docs/plan.schema.json is this, and a test keeps it so.
"""

from __future__ import annotations

import json

from stretto_sdk.plan_files.parameters import PARAMETER_SHAPE
from stretto_sdk.plan_form import RUN
from stretto_sdk.plan_shapes import (
    BINDING,
    DEPENDENCY,
    INCLUDE,
    JOIN,
    RETRY,
    SOURCES,
    TASK,
    TIMEOUTS,
)
from stretto_sdk.shapes import PARAMETER, JsonSchema

_DEFINED = (
    TASK,
    DEPENDENCY.longer,
    JOIN.longer,
    RETRY,
    TIMEOUTS,
    *SOURCES.values(),
    PARAMETER_SHAPE,
    INCLUDE,
)


def plan_schema() -> JsonSchema:
    """Return the JSON Schema (draft 2020-12) of a plan file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Stretto plan file",
        "description": "A run: its tasks, what comes before what, and its policies.",
        **RUN.definition(),
        "anyOf": [{"required": [name]} for name in ("tasks", "include", "growing")],
        "$defs": {
            "parameter": {
                "description": "A parameter in the place of a value.",
                "type": "string",
                "pattern": f"^{PARAMETER}$",
            },
            "binding": BINDING.definition(),
            **{each.name: each.definition() for each in _DEFINED},
        },
    }


def plan_schema_text() -> str:
    """Return the same as the text of a file."""
    return json.dumps(plan_schema(), indent=2, ensure_ascii=False) + "\n"
