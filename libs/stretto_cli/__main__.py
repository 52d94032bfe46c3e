"""The entry point of `stretto` and of `python -m stretto_cli`."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line of this process."""
    # A terminal that lacks a character gets a question mark, and the command goes on.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        # Here, so that Ctrl-C is quiet from the first moment on.
        from stretto_cli.app import app  # noqa: PLC0415

        app()
    except KeyboardInterrupt:
        # Before a command has begun: within one, `exits` says so.
        sys.exit(130)


if __name__ == "__main__":
    main()
