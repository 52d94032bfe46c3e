"""Which suite the command talks to and as whom: flags, the environment, the config file, the suite
that runs on this machine; each with where it came from.

A suite is named by an address or by a data directory. What names one at the highest rank decides;
at the same rank the address does. A token goes only where it belongs: one of the config file to
the suite that the file names, one of a data directory to the suite of that directory.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stretto_core.errors import InvalidArgument
from stretto_core.localstack.data_directory import default_data_directory
from stretto_core.rpc.tokens import TokenRefused, read_token_file
from stretto_core.telemetry.secret import Secret
from stretto_sdk.endpoint import OPERATOR, TOKENS_DIRECTORY

from stretto_cli.config_file import ConfigContext, config_path, read_context
from stretto_cli.suite.directory import SuiteDirectory
from stretto_cli.suite.known import other_running_suites

DEFAULT_NAMESPACE = "default"
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and who said it, in words for people; value "" = not set."""

    value: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What was given on the command line; None = not given."""

    address: str | None = None
    token_file: Path | None = None
    data_dir: Path | None = None
    namespace: str | None = None
    config: Path | None = None
    context: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is in effect.

    address: "" when no suite runs in the data directory. token: its value is the name of the file
    it is in, or "(given)". elsewhere: the address was said, not read from a data directory.
    """

    address: Setting
    token: Setting
    data_dir: Setting
    namespace: Setting
    config: Setting
    context: str
    elsewhere: bool
    secret: Secret | None

    @property
    def directory(self) -> SuiteDirectory:
        """The data directory in effect."""
        return SuiteDirectory(Path(self.data_dir.value))

    @property
    def namespace_asked(self) -> str:
        """The namespace that the command line says, "" when it says none.

        It narrows what would else be of all; one that is set for all commands does not.
        """
        return self.namespace.value if self.namespace.origin == "--namespace" else ""


def effective_settings(
    flags: Flags, environ: Mapping[str, str], *, discover: bool = True
) -> Settings:
    """Return what is in effect, with origins.

    discover: without any word, take the one suite that runs on this machine, wherever its data is.
    Raises InvalidArgument (the config file, a token file, a namespace, several suites), OSError.
    """
    path, path_origin = config_path(flags.config, environ)
    context = read_context(path, flags.context or environ.get("STRETTO_CONTEXT"))
    address, data_dir = _which_suite(flags, environ, context, discover=discover)
    written = "" if address.value else _running_address(data_dir)
    found = address if address.value else Setting(written, f"the suite in {data_dir.value}")
    token, secret = _token(flags, environ, context, address=address, data_dir=data_dir)
    return Settings(
        address=found,
        token=token,
        data_dir=data_dir,
        namespace=_namespace(flags, environ, context),
        config=Setting(str(path), path_origin if path.exists() else "absent"),
        context=context.name,
        elsewhere=bool(address.value),
        secret=secret,
    )


def _which_suite(
    flags: Flags, environ: Mapping[str, str], context: ConfigContext, *, discover: bool
) -> tuple[Setting, Setting]:
    """Return the address ("" = that of the data directory) and the data directory."""
    unset = Setting("", "")
    ranks = (
        (flags.address, "--address", flags.data_dir, "--data-dir"),
        (
            environ.get("STRETTO_ADDRESS"),
            "$STRETTO_ADDRESS",
            environ.get("STRETTO_DATA_DIR"),
            "$STRETTO_DATA_DIR",
        ),
        (context.address, context.origin, context.data_dir, context.origin),
    )
    address = unset
    for said, by, directory, directory_by in ranks:
        if said and not address.value:
            address = Setting(said, by)
        if directory:
            return address, Setting(str(Path(directory).absolute()), directory_by)
        if address.value:
            break
    default = default_data_directory(environ).absolute()
    others = other_running_suites(default, environ) if discover and not address.value else []
    if len(others) > 1:
        listed = "\n  ".join(str(each) for each in others)
        raise InvalidArgument(
            f"several suites run on this machine; choose one with --data-dir:\n  {listed}"
        )
    if others:
        return address, Setting(str(others[0]), "the one suite running on this machine")
    return address, Setting(str(default), "default")


def _running_address(data_dir: Setting) -> str:
    directory = SuiteDirectory(Path(data_dir.value))
    return (directory.address() or "") if directory.running() is not None else ""


def _token(
    flags: Flags,
    environ: Mapping[str, str],
    context: ConfigContext,
    *,
    address: Setting,
    data_dir: Setting,
) -> tuple[Setting, Secret | None]:
    if flags.token_file is not None:
        return _from_file(flags.token_file, "--token-file")
    if environ.get("STRETTO_TOKEN"):
        return Setting("(given)", "$STRETTO_TOKEN"), Secret(environ["STRETTO_TOKEN"])
    if environ.get("STRETTO_TOKEN_FILE"):
        return _from_file(Path(environ["STRETTO_TOKEN_FILE"]), "$STRETTO_TOKEN_FILE")
    named_by = address.origin if address.value else data_dir.origin
    if context.token_file and named_by == context.origin:
        return _from_file(Path(context.token_file), context.origin)
    if not address.value:
        path = Path(data_dir.value) / TOKENS_DIRECTORY / f"{OPERATOR}.token"
        try:
            return Setting(str(path), "the data directory"), read_token_file(path)
        except TokenRefused:
            pass  # Not ours to read, or no suite yet: the kernel says what anonymous may.
    return Setting("", "none: anonymous"), None


def _namespace(flags: Flags, environ: Mapping[str, str], context: ConfigContext) -> Setting:
    found = _first(
        (flags.namespace, "--namespace"),
        (environ.get("STRETTO_NAMESPACE"), "$STRETTO_NAMESPACE"),
        (context.namespace, context.origin),
        (DEFAULT_NAMESPACE, "default"),
    )
    if not _NAMESPACE.fullmatch(found.value):
        raise InvalidArgument(
            f"{found.origin}: {found.value!r} is no namespace: 1-63 characters of a-z, 0-9 and -"
        )
    return found


def _from_file(path: Path, origin: str) -> tuple[Setting, Secret]:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise InvalidArgument(
                f"{path} ({origin}) holds a token and others may read it: chmod 600 {path}"
            )
        return Setting(str(path), origin), read_token_file(path)
    except TokenRefused as refused:
        raise InvalidArgument(f"{origin}: {refused}") from None
    except OSError as error:
        raise InvalidArgument(f"{origin}: {path}: {error.strerror}") from None


def _first(*candidates: tuple[str | None, str]) -> Setting:
    return next(Setting(value, origin) for value, origin in candidates if value)
