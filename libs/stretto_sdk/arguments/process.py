"""What the arguments of a process task mean: the command to run and how to read its output. Pure.

Placeholders are filled in argv and in the values of env; a value of env may name a secret instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath
from typing import Final

from stretto_core.errors import InvalidArgument

from stretto_sdk.arguments.placeholders import Placeholders, plain
from stretto_sdk.arguments.secret_references import SecretReference, text_or_secret
from stretto_sdk.fields import Fields, Mistakes, name_of
from stretto_sdk.strict_json import parse_json, to_json

OUTPUT_BYTES_DEFAULT: Final = 8 * 1024 * 1024
OUTPUT_BYTES_MAX: Final = 64 * 1024 * 1024
PATTERNS_MAX: Final = 100


class OutputForm(Enum):
    """How standard output becomes the result."""

    JSON = "json"
    """One JSON value; nothing at all is null."""
    TEXT = "text"
    """A string; it must be UTF-8."""
    NONE = "none"
    """It does not: any bytes, as many as there are, go to the task log only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. stdin: bytes to feed. spawns: the output is {"output": ..., "spawn": [...]}.

    artifacts: paths and glob patterns relative to cwd, of the files to leave behind.
    blackboard: it gets a pipe to write to the run's.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str | SecretReference]
    cwd: str
    stdin: bytes
    output: OutputForm
    spawns: bool
    retryable_exit_codes: frozenset[int] | None
    final_exit_codes: frozenset[int]
    output_bytes_max: int
    artifacts: tuple[str, ...] = ()
    blackboard: bool = False

    def is_retryable(self, code: int) -> bool:
        """Whether another attempt may help after this exit code (-N: ended by signal N)."""
        if code in self.final_exit_codes:
            return False
        return self.retryable_exit_codes is None or code in self.retryable_exit_codes


def parse_command(arguments_json: str, inputs: Mapping[str, object]) -> Command:
    """Return the command of a task. Raises InvalidArgument with every mistake.

    argv is required. Defaults: env adds nothing, cwd is the worker's, stdin gets the inputs as one
    JSON object, output is "json", every exit code but 0 is retryable.
    """
    mistakes = Mistakes()
    value = parse_json(arguments_json or "{}", source="the arguments")
    command = read_command(Fields(value, "", mistakes), Placeholders(inputs, mistakes))
    mistakes.raise_if_any("the arguments object")
    return command


def read_command(fields: Fields, fill: Placeholders) -> Command:
    """Return the command that the fields describe as far as it can be read; note the rest."""
    mistakes = fields.mistakes
    words = _words(fields, fill)
    argv = [word for word in words if word is not None]
    if not words or words[0] == "":
        fields.wrong("argv", "is required: a list of the program and its arguments")
    env = {
        name: text_or_secret(value, path, mistakes, fill)
        for path, name, value in fields.members("env")
    }
    for name in env:
        if not name or "=" in name or "\0" in name or name.startswith("STRETTO_"):
            fields.wrong("env", f"cannot set {name!r}")
    plain_env = [value for value in env.values() if isinstance(value, str)]
    if any("\0" in text for text in (*argv, *plain_env)):
        fields.wrong("argv", "and env may hold no NUL character")
    codes = {
        name: _codes(fields, name) if fields.has(name) else None
        for name in ("retryable_exit_codes", "final_exit_codes")
    }
    command = Command(
        argv=tuple(argv),
        env=env,
        cwd=fields.text("cwd"),
        stdin=_stdin(fields, fill.inputs),
        output=fields.word("output", {form.value: form for form in OutputForm}, OutputForm.JSON),
        spawns=fields.boolean("spawn"),
        retryable_exit_codes=codes["retryable_exit_codes"],
        final_exit_codes=codes["final_exit_codes"] or frozenset(),
        output_bytes_max=fields.integer("output_bytes_max", low=1, high=OUTPUT_BYTES_MAX)
        or OUTPUT_BYTES_DEFAULT,
        artifacts=_patterns(fields, fill),
        blackboard=fields.boolean("blackboard"),
    )
    if command.spawns and command.output is not OutputForm.JSON:
        fields.wrong("spawn", 'needs the output to be "json"')
    fields.finish()
    return command


def _words(fields: Fields, fill: Placeholders) -> list[str | None]:
    def read(value: object, path: str, mistakes: Mistakes) -> str | None:
        if isinstance(value, str):
            return fill.fill(value, path)
        mistakes.add(path, f"must be a string, not {name_of(value)}")
        return None

    return fields.each("argv", read)


def _codes(fields: Fields, name: str) -> frozenset[int]:
    def read(value: object, path: str, mistakes: Mistakes) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not -64 <= value <= 255:
            mistakes.add(path, "must be an exit code, 1 to 255, or -N for signal N")
            return 0
        return value

    return frozenset(fields.each(name, read))


def _patterns(fields: Fields, fill: Placeholders) -> tuple[str, ...]:
    at = fields.at("artifacts")
    patterns = tuple(fill.fill(each, at) for each in fields.texts("artifacts"))
    if len(patterns) > PATTERNS_MAX:
        fields.wrong("artifacts", f"has more than {PATTERNS_MAX} entries")
    for pattern in patterns:
        path = PurePosixPath(pattern)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in pattern:
            fields.wrong("artifacts", f"{pattern!r} is no path below the working directory")
    return patterns


def _stdin(fields: Fields, inputs: Mapping[str, object]) -> bytes:
    value = fields.value("stdin")
    if value in (None, "inputs"):
        named = {name: plain(each) for name, each in inputs.items()}
        try:
            return to_json(named, source="the inputs").encode()
        except InvalidArgument as refusal:
            fields.wrong("stdin", refusal.message)
            return b""
    if value == "none":
        return b""
    if isinstance(value, Mapping) and set(value) == {"text"} and isinstance(value["text"], str):
        return value["text"].encode()
    fields.wrong("stdin", 'must be "inputs", "none" or {"text": "..."}')
    return b""
