"""How much may be under way: counted by calls and by bytes, shared by namespaces, and given
back however a call ends."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest
from stretto_kernel.app.admission import BYTES_PER_WEIGHT, Admission
from stretto_kernel.app.fact_writer import Overloaded


def test_a_call_counts_until_it_ends_also_badly() -> None:
    admission = Admission(2)
    with admission.admit("a", 0), admission.admit("a", 0):
        with pytest.raises(Overloaded) as refused:
            admission.admit("a", 0)
        assert refused.value.retry_delay_ms is not None
    with pytest.raises(ZeroDivisionError), admission.admit("a", 0):
        raise ZeroDivisionError
    assert (admission.weight, admission.refused_count) == (0, 1)


def test_a_namespace_below_its_share_comes_in_beside_one_that_fills_everything() -> None:
    admission = Admission(8)
    with ExitStack() as under_way:
        filled = [under_way.enter_context(admission.admit("hog", 0)) for _ in range(8)]
        for _ in range(4):
            under_way.enter_context(admission.admit("meek", 0))
        for namespace in ("meek", "hog"):
            with pytest.raises(Overloaded):
                admission.admit(namespace, 0)
        for _ in range(2):  # A third of eight is more than two.
            under_way.enter_context(admission.admit("third", 0))
        under_way.enter_context(admission.admit("third", 0))
        assert (admission.weight, len(filled)) == (15, 8)
    assert (admission.weight, admission.namespace_count) == (0, 0)


def test_a_namespace_that_filled_everything_comes_down_to_its_share() -> None:
    admission = Admission(8)
    open_calls: dict[str, list[ExitStack]] = {"hog": [], "meek": []}
    for turn in range(200):
        for namespace, calls in open_calls.items():
            with suppress(Overloaded):
                while True:
                    call = ExitStack()
                    call.enter_context(admission.admit(namespace, 0))
                    calls.append(call)
        most = max(open_calls.values(), key=len) if turn % 2 else open_calls["hog"]
        most.pop(0).close()
    assert all(3 <= len(calls) <= 5 for calls in open_calls.values())


def test_any_number_of_namespaces_has_twice_the_room() -> None:
    admission = Admission(8)
    with ExitStack() as under_way:
        for number in range(16):
            under_way.enter_context(admission.admit(f"n{number}", 0))
        with pytest.raises(Overloaded):
            admission.admit("another", 0)
        assert admission.namespace_count == 16


def test_a_large_request_weighs_as_many_and_is_never_too_heavy_by_itself() -> None:
    admission = Admission(10)
    with admission.admit("a", 100 * BYTES_PER_WEIGHT), pytest.raises(Overloaded):
        admission.admit("a", 0)
    with admission.admit("a", 8 * BYTES_PER_WEIGHT):
        assert admission.weight == 9
        with admission.admit("a", 0), pytest.raises(Overloaded):
            admission.admit("a", 0)
