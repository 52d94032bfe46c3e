"""Docstrings as help: paragraphs flow into the width there is, examples stay as they are."""

from __future__ import annotations

import inspect


def help_markup(docstring: str | None) -> str:
    """Return a docstring as markup for help.

    A paragraph becomes one line, for the terminal to wrap; a block that is indented (an example)
    keeps its lines and gets a colour of its own. Nothing in it is taken for markup.
    """
    blocks = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(_example(each) if each[:1] == " " else _prose(each) for each in blocks)


def _prose(block: str) -> str:
    return _escaped(" ".join(block.split()))


def _example(block: str) -> str:
    # The tag comes first in its line: whoever prints help strips leading blanks.
    return "\n".join(f"[cyan]{_escaped(line)}[/]" for line in block.splitlines())


def _escaped(text: str) -> str:
    return text.replace("[", "\\[")
