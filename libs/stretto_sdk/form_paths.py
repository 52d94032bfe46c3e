"""Field paths of the contract, in the words of the form that people write plans in."""

from __future__ import annotations

import re

from stretto_sdk.plan_files.places import step_text

_SOURCE = re.compile(r"\.(run_input|task_output|subtree_outputs|board_entry|literal\.json)\b")


def form_path(contract_path: str) -> str:
    """Return the path in this form of a field that the kernel names by its path in the contract.

    `task_graph.tasks[1].dependencies[0].task` is `tasks[1].after[0]` here.
    """
    path = contract_path.removeprefix("task_graph.").replace("_json", "", 1)
    path = re.sub(r"\['([^'\\]*)'\]", lambda key: step_text(key[1]), path)
    path = _SOURCE.sub("", path)
    return re.sub(r"dependencies\[([0-9]+)\](\.task$)?", r"after[\1]", path)
