"""The rules of the house that ruff cannot check. Every ban names what to do instead."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
from stretto_core.rpc.permissions import required_permission

ROOT = Path(__file__).parents[2]
THIS = "tests/unit/test_tidy.py"
SOURCE_LINES_MAX = 400
LONGER = {
    "libs/stretto_verify/verify.py": 500,  # One file that is copied away and runs alone.
    "libs/stretto_sdk/sync_client.py": 600,  # Generated: a method for each of the client's parts.
}
TEST_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
TEST_FUNCTION_LINES_MAX = 100  # A table of cases is long and easy to read.
POSITIONAL_MAX = 5
GENERATED = "libs/protogen/"
NAMES_BANNED = {"utils", "util", "helpers", "common", "base", "manager", "misc"}


@dataclass(frozen=True)
class Ban:
    """A text that must not stand in a Python file, unless its path matches `allowed`."""

    pattern: str
    instead: str
    allowed: str = r"$^"
    inside: str = r"libs/|services/|tests/|scripts/|examples/"


BANS = [
    Ban(
        r"\bsys\.path\b",
        "install the package (pyproject.toml lists the roots); import by its real name",
    ),
    Ban(
        r"\bunittest\.mock\b|\bfrom unittest import\b|\bmocker\b",
        "use the memory or manual adapter that passes the port's contract suite",
    ),
    Ban(
        r"\bos\.(environ|getenv|putenv)\b",
        "read it in settings.py or __main__.py and pass it on",
        allowed=r"(settings|__main__|conftest)\.py$|libs/stretto_core/localstack/|libs/stretto_cli/|"
        r"libs/stretto_sdk/endpoint\.py$|tests/(e2e|bench|chaos)/|scripts/|examples/",
    ),
    Ban(
        r"\bcontext\.(abort|set_code|set_details)\b",
        "raise a refusal of stretto_core.errors; the guard translates it",
        allowed=r"libs/stretto_core/rpc/guard\.py$",
    ),
    Ban(
        r"\bgrpc\.StatusCode\b",
        "raise and catch the classes of stretto_core.errors",
        allowed=r"libs/stretto_core/rpc/status\.py$|tests/(unit|integration)/rpc/",
    ),
    Ban(
        r"\btime\.(time|monotonic|perf_counter|time_ns|monotonic_ns)\(|\bdatetime\.(now|utcnow)\(",
        "take a Clock, or the loop's time()",
        # Behind the log port there are threads, and time is real.
        allowed=r"stretto_core/(clock|ids)/system\.py$|stretto_core/eventlog/postgres/",
        inside=r"services/|libs/stretto_core/|libs/stretto_sdk/",
    ),
    Ban(
        r"\b(TODO|FIXME|XXX)\b|\bbreakpoint\(",
        "do it now, or say it in the documentation of what is missing",
    ),
    Ban(r"#\s*type: ignore(?!\[)", "name the error that is ignored: type: ignore[code]"),
]

# Where time is virtual, waiting costs none of it; the command's own thread has no loop to wait on.
SLEEP_ALLOWED = re.compile(
    r"tests/simulation/|tests/unit/testing/|libs/stretto_core/testing/|libs/stretto_cli/"
)
REGISTRY_HOSTS = ("pypi" + ".org", "python" + "hosted", "npmjs" + ".org", "--index" + "-url")
MACHINE_PATHS = re.compile(r"(?<![\w.$}~-])/(?:work|root|home|Users|tmp/wt)/[\w.-]+")


@cache
def committed() -> tuple[str, ...]:
    """Every file that is or would be committed, as paths from the root."""
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        paths = listed.stdout.splitlines()
    else:
        skipped = {".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
        paths = [
            path.relative_to(ROOT).as_posix()
            for path in ROOT.rglob("*")
            if path.is_file() and not skipped.intersection(path.relative_to(ROOT).parts)
        ]
    return tuple(sorted(path for path in paths if (ROOT / path).is_file()))


def python_files() -> list[str]:
    return [path for path in committed() if path.endswith(".py") and not path.startswith(GENERATED)]


def text_of(path: str) -> str:
    return (ROOT / path).read_text(errors="replace")


@cache
def tree_of(path: str) -> ast.Module:
    return ast.parse(text_of(path), path)


def none_of(findings: Iterator[str]) -> None:
    found = list(findings)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("ban", BANS, ids=lambda ban: ban.pattern[:24])
def test_what_is_banned_does_not_occur(ban: Ban) -> None:
    none_of(
        f"{path}:{number}: {line.strip()!r}: {ban.instead}"
        for path in python_files()
        if path != THIS and re.match(ban.inside, path) and not re.search(ban.allowed, path)
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if re.search(ban.pattern, line)
    )


def test_nothing_sleeps() -> None:
    """A test never waits for a time; a service waits only for one that has a name and a reason."""
    none_of(
        f"{path}:{call.lineno}: await a condition with a deadline (tests/waiting.py), or an event"
        " with asyncio.wait_for; a back-off or linger is a named delay in the loop's time"
        for path in python_files()
        if path.startswith(("tests/", "libs/", "services/")) and not SLEEP_ALLOWED.match(path)
        if "sleep(" in text_of(path)  # Walking every tree takes seconds.
        for call in ast.walk(tree_of(path))
        if isinstance(call, ast.Call) and _sleeps(call, named_delay=not path.startswith("tests/"))
    )


def _sleeps(call: ast.Call, *, named_delay: bool) -> bool:
    match call:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="asyncio"), attr="sleep"), args=[delay, *_]
        ):
            if isinstance(delay, ast.Constant):
                return delay.value != 0
            return not named_delay
        case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr="sleep")):
            return True
        case _:
            return False


def test_files_stay_readable() -> None:
    none_of(
        f"{path}: {count} lines, at most {limit}: split it by what its parts know"
        for path in python_files()
        for count in [len(text_of(path).splitlines())]
        for limit in [
            TEST_LINES_MAX if path.startswith("tests/") else LONGER.get(path, SOURCE_LINES_MAX)
        ]
        if count > limit
    )


def functions(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_functions_stay_readable() -> None:
    none_of(
        f"{path}:{node.lineno}: {node.name} has {count} lines, at most {limit}:"
        " name a part of it and call that"
        for path in python_files()
        for node in functions(path)
        for count in [(node.end_lineno or node.lineno) - node.lineno + 1]
        for limit in [TEST_FUNCTION_LINES_MAX if path.startswith("tests/") else FUNCTION_LINES_MAX]
        if count > limit
    )


def test_parameters_beyond_five_are_named_at_the_call() -> None:
    none_of(
        f"{path}:{node.lineno}: {node.name} takes {len(names)} positional parameters, at most"
        f" {POSITIONAL_MAX}: put a * before those that need a name at the call"
        for path in python_files()
        # A command's parameters are its options, which have names.
        if path.startswith(("libs/", "services/")) and not path.startswith("libs/stretto_cli/")
        for node in functions(path)
        for names in [[arg.arg for arg in (*node.args.posonlyargs, *node.args.args)]]
        if len([name for name in names if name not in ("self", "cls")]) > POSITIONAL_MAX
    )


def test_modules_are_named_after_an_idea() -> None:
    none_of(
        f"{path}: call it after what it knows, and keep it beside its user"
        for path in python_files()
        if NAMES_BANNED.intersection(PurePosixPath(path).with_suffix("").parts)
    )


def test_every_module_says_what_it_is() -> None:
    none_of(
        f"{path}: begin with a docstring: what it owns, what it may not do, units"
        for path in python_files()
        if text_of(path).strip() and not ast.get_docstring(tree_of(path))
    )


def test_nothing_committed_knows_this_machine_or_a_registry() -> None:
    none_of(
        f"{path}:{number}: {found!r}: use a path relative to the root, or the client's own settings"
        for path in committed()
        if path != THIS and (ROOT / path).stat().st_size < 1 << 20
        for number, line in enumerate(text_of(path).splitlines(), 1)
        for found in [*MACHINE_PATHS.findall(line), *(h for h in REGISTRY_HOSTS if h in line)]
    )


def contracts() -> list[str]:
    return [
        path.removeprefix(GENERATED).removesuffix(".py").replace("/", ".")
        for path in committed()
        if path.startswith(GENERATED) and path.endswith("_pb2.py")
    ]


@pytest.mark.parametrize("module_name", contracts())
def test_every_method_names_its_permission(module_name: str) -> None:
    contract = importlib.import_module(module_name).DESCRIPTOR
    for service in contract.services_by_name.values():
        for method in service.methods:
            required_permission(method)


@pytest.mark.parametrize(
    ("text", "in_tests", "in_services"),
    [
        ("asyncio.sleep(1)", True, True),
        ("asyncio.sleep(0)", False, False),
        ("asyncio.sleep(backoff_s)", True, False),
        ("time.sleep(0)", True, True),
        ("loop.sleep(1)", False, False),
    ],
)
def test_the_check_for_sleeping_has_teeth(text: str, in_tests: bool, in_services: bool) -> None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    assert _sleeps(call, named_delay=False) is in_tests
    assert _sleeps(call, named_delay=True) is in_services


@pytest.mark.parametrize("name", ["work", "root", "home"])
def test_the_check_for_machine_paths_has_teeth(name: str) -> None:
    match: Callable[[str], object] = MACHINE_PATHS.search
    assert match(f"see /{name}/x")
    assert match(f'"/{name}/stretto"')
    assert not match(f"proto/{name}/x")
    assert not match(f"$HOME/{name}/x")
