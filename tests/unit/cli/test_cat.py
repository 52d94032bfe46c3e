"""What `stretto cat` writes where."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import pytest
from stretto_cli.blob_commands import _is_binary, _write
from stretto_core.errors import InvalidArgument


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


async def parts(*data: bytes) -> AsyncIterator[bytes]:
    for each in data:
        yield each


async def test_a_terminal_gets_text_only_unless_it_is_forced() -> None:
    terminal = Terminal()
    await _write(terminal, parts("größer\n".encode(), b"more"), refuses_bytes=True)
    assert terminal.getvalue() == "größer\nmore".encode()
    terminal = Terminal()
    with pytest.raises(InvalidArgument, match="--force"):
        await _write(terminal, parts(b"\x89PNG\r\n\x1a\n\0"), refuses_bytes=True)
    assert terminal.getvalue() == b""
    await _write(terminal, parts(b"\0"), refuses_bytes=False)
    assert terminal.getvalue() == b"\0"


async def test_a_pipe_gets_any_bytes() -> None:
    pipe = io.BytesIO()
    await _write(pipe, parts(b"\0\xff", b"\0"), refuses_bytes=True)
    assert pipe.getvalue() == b"\0\xff\0"


def test_a_character_cut_at_the_end_of_what_is_looked_at_is_text() -> None:
    assert not _is_binary(("a" + "ä" * 8_192).encode())
    assert _is_binary(b"a\xff" + b"a" * 100)
