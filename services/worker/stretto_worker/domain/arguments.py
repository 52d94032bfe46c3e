"""What the arguments of a process task mean: the command to run and how to read its output. Pure.

Placeholders `${inputs.NAME}` in argv and in values of env become the input's value: a string as it
is, anything else as JSON. `$${` stands for `${`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from stretto_core.errors import InvalidArgument
from stretto_sdk.fields import Fields, Mistakes
from stretto_sdk.strict_json import parse_json, to_json

OUTPUT_BYTES_DEFAULT: Final = 64 * 1024
OUTPUT_BYTES_MAX: Final = 4 * 1024 * 1024
_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_NAME = re.compile(r"inputs\.(.+)", re.DOTALL)


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
    """What to run. stdin: bytes to feed. spawns: the output is {"output": ..., "spawn": [...]}."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    stdin: bytes
    output: OutputForm
    spawns: bool
    retryable_exit_codes: frozenset[int] | None
    final_exit_codes: frozenset[int]
    output_bytes_max: int

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
    fields = Fields(parse_json(arguments_json or "{}", source="the arguments"), "", mistakes)
    argv = [_fill(each, fields.at("argv"), inputs, mistakes) for each in fields.texts("argv")]
    if not argv or not argv[0]:
        fields.wrong("argv", "is required: a list of the program and its arguments")
    env = {
        name: _fill(value, f"env.{name}", inputs, mistakes)
        for name, value in fields.text_map("env").items()
    }
    for name in env:
        if not name or "=" in name or "\0" in name or name.startswith("STRETTO_"):
            fields.wrong("env", f"cannot set {name!r}")
    if any("\0" in text for text in (*argv, *env.values())):
        fields.wrong("argv", "and env may hold no NUL character")
    codes = {
        name: _codes(fields, name) if fields.has(name) else None
        for name in ("retryable_exit_codes", "final_exit_codes")
    }
    command = Command(
        argv=tuple(argv),
        env=env,
        cwd=fields.text("cwd"),
        stdin=_stdin(fields, inputs),
        output=fields.word("output", {form.value: form for form in OutputForm}, OutputForm.JSON),
        spawns=fields.boolean("spawn"),
        retryable_exit_codes=codes["retryable_exit_codes"],
        final_exit_codes=codes["final_exit_codes"] or frozenset(),
        output_bytes_max=fields.integer("output_bytes_max", low=1, high=OUTPUT_BYTES_MAX)
        or OUTPUT_BYTES_DEFAULT,
    )
    if command.spawns and command.output is not OutputForm.JSON:
        fields.wrong("spawn", 'needs the output to be "json"')
    fields.finish()
    mistakes.raise_if_any("the arguments object")
    return command


def _codes(fields: Fields, name: str) -> frozenset[int]:
    def read(value: object, path: str, mistakes: Mistakes) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not -64 <= value <= 255:
            mistakes.add(path, "must be an exit code, 1 to 255, or -N for signal N")
            return 0
        return value

    return frozenset(fields.each(name, read))


def _stdin(fields: Fields, inputs: Mapping[str, object]) -> bytes:
    value = fields.value("stdin")
    if value in (None, "inputs"):
        plain = {name: _plain(each) for name, each in inputs.items()}
        try:
            return to_json(plain, source="the inputs").encode()
        except InvalidArgument as refusal:
            fields.wrong("stdin", refusal.message)
            return b""
    if value == "none":
        return b""
    if isinstance(value, Mapping) and set(value) == {"text"} and isinstance(value["text"], str):
        return value["text"].encode()
    fields.wrong("stdin", 'must be "inputs", "none" or {"text": "..."}')
    return b""


def _plain(value: object) -> object:
    """Bytes have no JSON: on standard input they read as text, or are refused."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _fill(text: str, path: str, inputs: Mapping[str, object], mistakes: Mistakes) -> str:
    def value_of(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "${"
        named = _NAME.fullmatch(match.group(1))
        if named is None or named.group(1) not in inputs:
            known = ", ".join(f"${{inputs.{name}}}" for name in inputs) or "none"
            mistakes.add(path, f"{match.group(0)} is no input of this task; it has: {known}")
            return ""
        value = _plain(inputs[named.group(1)])
        return value if isinstance(value, str) else to_json(value, source="it")

    return _PLACEHOLDER.sub(value_of, text)
