"""The entry point of `stretto` and of `python -m stretto_cli`."""

from __future__ import annotations

from stretto_cli.app import app


def main() -> None:
    """Run the command line of this process."""
    app()


if __name__ == "__main__":
    main()
