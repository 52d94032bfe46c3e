"""What a run is given on the command line: its labels, and values."""

from __future__ import annotations

import pytest
from stretto_cli.run_input import input_given, labels_given
from stretto_core.errors import InvalidArgument


def test_labels_are_keys_and_values() -> None:
    assert labels_given(["a=1", "b="]) == {"a": "1", "b": ""}
    with pytest.raises(InvalidArgument, match="--label x"):
        labels_given(["x"])


def test_what_is_no_json_is_named_as_the_command_names_it() -> None:
    with pytest.raises(InvalidArgument, match=r"^VALUE is not JSON"):
        input_given("{aim: 1}", "VALUE")
    with pytest.raises(InvalidArgument, match=r"^--input is not JSON"):
        input_given("{aim: 1}")


def test_a_text_without_quotes_of_its_own_is_shown_with_them() -> None:
    with pytest.raises(InvalidArgument, match=r"own: '\"two words\"'$"):
        input_given("two words")
    with pytest.raises(InvalidArgument, match=r"column 2$"):
        input_given("{aim: 1}")
