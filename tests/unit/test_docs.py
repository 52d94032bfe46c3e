"""The pages that are made from the code are as it is; `make docs` writes them anew."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
import stretto_kernel.settings as kernel
import stretto_worker.settings as worker
from stretto_core.variables import Variable

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def gen_docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gen_docs", ROOT / "scripts" / "gen_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Watched(Mapping[str, str]):
    """An environment that notes what is asked of it."""

    def __init__(self, **values: str) -> None:
        self.values_by_name = values
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self.values_by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


def test_the_reference_of_the_command_is_its_help(gen_docs: ModuleType) -> None:
    page = (ROOT / "docs" / "command.md").read_text()
    assert page == gen_docs.command_page(), "run `make docs`"


def test_the_tables_of_settings_are_those_of_the_services(gen_docs: ModuleType) -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert page == gen_docs.with_tables(page), "run `make docs`"
    for table in gen_docs.settings_tables().values():
        assert table in page


@pytest.mark.parametrize(
    ("variables", "settings", "required"),
    [
        (kernel.VARIABLES, kernel.Settings, {"STRETTO_POSTGRES_DSN": "postgresql://x"}),
        (worker.VARIABLES, worker.Settings, {}),
    ],
)
def test_every_variable_that_is_read_is_listed(
    variables: tuple[Variable, ...],
    settings: type[kernel.Settings] | type[worker.Settings],
    required: dict[str, str],
) -> None:
    environ = Watched(**required)
    settings.from_env(environ)
    read = {name for name in environ.asked if name.startswith("STRETTO_")}
    listed = {each.name for each in variables if not each.name.endswith("...")}
    assert read == listed
    assert {each.field.partition(".")[0] for each in variables} <= {
        each.name for each in fields(settings)
    }
