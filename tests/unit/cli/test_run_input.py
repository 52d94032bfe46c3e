"""What a run is given on the command line: its labels."""

from __future__ import annotations

import pytest
from stretto_cli.run_input import labels_given
from stretto_core.errors import InvalidArgument


def test_labels_are_keys_and_values() -> None:
    assert labels_given(["a=1", "b="]) == {"a": "1", "b": ""}
    with pytest.raises(InvalidArgument, match="--label x"):
        labels_given(["x"])
