"""The keys of a blackboard: `<namespace>/<path>` of the run, `<task>:<namespace>/<path>` of a task.

Neither names of tasks nor paths hold a colon, so that a key is read in one way only.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from stretto_core.ids import TaskName

from stretto_kernel.domain.run.findings import Findings

NAMESPACES: Final = frozenset(
    ("context", "plan", "progress", "result", "artifacts", "verifier", "human", "custom")
)
RESULT: Final = "result"
"""What is written here is compared with what was seen."""
VERIFIER: Final = "verifier"
"""Where verifiers write, and no worker."""
KEY_CHARACTERS_MAX: Final = 512
PATH_CHARACTERS_MAX: Final = 256
_WORD: Final = r"[A-Za-z0-9_.#-]+"
_KEY: Final = re.compile(rf"(?:({_WORD}(?:/{_WORD})*):)?([a-z]+)/({_WORD}(?:/{_WORD})*)")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.#/:-]*")


class BoardKey(NamedTuple):
    """A key and its scope. task: None = of the run as a whole."""

    text: str
    task: TaskName | None
    namespace: str


def parse_key(text: str) -> BoardKey | None:
    """Return the parts of a key; None for a text that is none."""
    match = _KEY.fullmatch(text)
    if match is None or len(text) > KEY_CHARACTERS_MAX:
        return None
    task, namespace, path = match.groups()
    if namespace not in NAMESPACES or len(path) > PATH_CHARACTERS_MAX:
        return None
    return BoardKey(text, None if task is None else TaskName(task), namespace)


def split_key(key: str) -> tuple[str, str]:
    """Return the task, "" for none, and the namespace of what is known to be a key."""
    task, _, rest = key.rpartition(":")
    return task, rest.partition("/")[0]


def check_key(findings: Findings, field: str, text: str) -> BoardKey | None:
    """Return the parts of a key, or note that it is none."""
    key = parse_key(text)
    if key is None:
        findings.wrong(
            field,
            "must be NAMESPACE/PATH or TASK:NAMESPACE/PATH with a namespace of "
            f"{', '.join(sorted(NAMESPACES))} and a path of 1-{PATH_CHARACTERS_MAX} characters of "
            f"[A-Za-z0-9_.#-] in words joined by '/', {KEY_CHARACTERS_MAX} characters in all",
        )
    return key


def check_prefix(findings: Findings, field: str, text: str) -> str:
    """Return the beginning of keys, or note that no key begins so."""
    if len(text) > KEY_CHARACTERS_MAX or not _PREFIX.fullmatch(text):
        findings.wrong(field, f"must be at most {KEY_CHARACTERS_MAX} characters of a key")
    return text
