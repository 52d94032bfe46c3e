"""The end of a log, for people."""

from __future__ import annotations

import json

from stretto_core.localstack.log_lines import LINES_MAX, readable_end


def test_lines_of_ours_are_words_and_others_stay() -> None:
    ours = json.dumps(
        {
            "event": "kernel.failed",
            "level": "error",
            "timestamp": "2026-01-01T00:00:00Z",
            "exception": "Traceback (most recent call last):\n  File x\nOSError: no",
        }
    )
    text = "\n".join(["FATAL:  no such database", ours, '{"event": "cut in the mi'])
    assert readable_end(text).splitlines() == [
        "FATAL:  no such database",
        "2026-01-01T00:00:00Z error kernel.failed exception=OSError: no",
        '{"event": "cut in the mi',
    ]


def test_only_the_last_lines_are_shown() -> None:
    text = "\n".join(str(number) for number in range(100))
    assert readable_end(text).splitlines()[0] == str(100 - LINES_MAX)
    assert readable_end("") == ""
