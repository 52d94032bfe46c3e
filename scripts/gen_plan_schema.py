"""Writes docs/plan.schema.json from the shapes of the plan form: `gen_plan_schema.py FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from stretto_sdk.plan_schema import plan_schema_text

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(plan_schema_text())
