"""How much may be under way: counted by calls and by bytes, and given back however a call ends."""

from __future__ import annotations

import pytest
from stretto_kernel.app.admission import BYTES_PER_WEIGHT, Admission
from stretto_kernel.app.fact_writer import Overloaded


def test_a_call_counts_until_it_ends_also_badly() -> None:
    admission = Admission(2)
    with admission.admit(0), admission.admit(0):
        with pytest.raises(Overloaded) as refused:
            admission.admit(0)
        assert refused.value.retry_delay_ms is not None
    with pytest.raises(ZeroDivisionError), admission.admit(0):
        raise ZeroDivisionError
    assert (admission.weight, admission.refused_count) == (0, 1)


def test_a_large_request_weighs_as_many_and_is_never_too_heavy_by_itself() -> None:
    admission = Admission(10)
    with admission.admit(100 * BYTES_PER_WEIGHT), pytest.raises(Overloaded):
        admission.admit(0)
    with admission.admit(8 * BYTES_PER_WEIGHT):
        assert admission.weight == 9
        with admission.admit(0), pytest.raises(Overloaded):
            admission.admit(0)
