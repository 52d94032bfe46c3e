"""Views by the command, on a suite of real processes whose projector is killed meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess

from tests.e2e.conftest import BIN, ROOT, Suite


def test_views_are_listed_and_made_again_over_a_kill_of_the_projector(suite: Suite) -> None:
    for _ in range(3):
        ran = suite.stretto("run", ROOT / "examples" / "hello" / "plan.yaml")
        assert ran.returncode == 0, ran.stderr
    with subprocess.Popen(
        [BIN / "stretto", "rebuild", "--json"],
        env=suite.environ,
        stdout=subprocess.PIPE,
        text=True,
    ) as rebuilding:
        suite.signal("projector", signal.SIGKILL)
        out, _ = rebuilding.communicate()
    fold = json.loads(out)
    assert rebuilding.returncode == 0, fold
    assert fold["done"] and all(proof["equal"] for proof in fold["proofs"])
    assert "tasks" in fold["views"] and "run_index" in fold["views"]
    compared = suite.stretto("rebuild", "tasks", "--compare")
    assert compared.returncode == 0, compared.stderr
    assert "equal" in compared.stdout
    listed = suite.stretto("views")
    assert listed.returncode == 0, listed.stdout
    assert listed.stdout.count("FOLLOWING") == len(fold["views"])
    assert suite.stretto("status").returncode == 0


def test_a_wrong_name_is_told_with_the_one_meant(suite: Suite) -> None:
    refused = suite.stretto("rebuild", "taks")
    assert refused.returncode == 2
    assert "did you mean tasks?" in refused.stderr
