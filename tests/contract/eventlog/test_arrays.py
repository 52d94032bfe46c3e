"""Lists cross the connection as psycopg itself would send them, element for element."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stretto_core.eventlog.postgres.arrays import WholeListDumper
from stretto_core.eventlog.postgres.connections import PostgresOptions, connection_parameters

Connection = psycopg.Connection[Any]

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
LISTS = {
    "smallint": st.lists(st.integers(-(2**15), 2**15 - 1)),
    "integer": st.lists(st.integers(-(2**31), 2**31 - 1)),
    "bigint": st.lists(st.integers(-(2**63), 2**63 - 1)),
    "bigint or null": st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
    "boolean": st.lists(st.booleans()),
    "text": st.lists(TEXTS),
    "text or null": st.lists(st.none() | TEXTS),
    "bytea": st.lists(st.binary()),
    "double precision": st.lists(st.floats(allow_nan=False)),
}


@pytest.fixture(scope="module")
def connection(postgres_dsn: str) -> Iterator[Connection]:
    """Open a connection as every process does."""
    with psycopg.connect(**connection_parameters(postgres_dsn, PostgresOptions())) as opened:
        yield opened


@pytest.mark.parametrize("element", LISTS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choice=st.data())
def test_a_list_comes_back_as_it_was_sent(
    connection: Connection, element: str, choice: st.DataObject
) -> None:
    sent = choice.draw(LISTS[element])
    cast = element.removesuffix(" or null")
    row = connection.execute(f"SELECT %s::{cast}[]", [sent]).fetchone()
    assert row == (sent,)


def test_lists_of_lists_are_left_to_psycopg(connection: Connection) -> None:
    sent = [[1, 2], [3, 4]]
    assert connection.execute("SELECT %s::integer[]", [sent]).fetchone() == (sent,)


def test_every_connection_packs_lists_as_a_whole(connection: Connection) -> None:
    dumper = psycopg.adapt.Transformer(connection).get_dumper([1], psycopg.adapt.PyFormat.AUTO)
    assert isinstance(dumper, WholeListDumper)
