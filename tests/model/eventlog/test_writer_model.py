"""The group writer in every order of happenings: none forgotten, split or invented."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.eventlog.writer_model import WriterModel

DEPTH = 6


def test_every_short_history_holds() -> None:
    """Breadth first over every action that may happen next; the count shows it is not vacuous."""
    histories = 0
    frontier = [WriterModel()]
    for _ in range(DEPTH):
        following: list[WriterModel] = []
        for model in frontier:
            for name in model.actions():
                after = model.clone()
                after.actions()[name]()
                after.check_end()
                following.append(after)
        histories += len(following)
        frontier = following
    print(f"{histories} histories of the group writer, 0 violations")  # noqa: T201
    assert histories > 10_000


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_long_random_histories_hold(data: st.DataObject) -> None:
    model = WriterModel()
    for _ in range(data.draw(st.integers(20, 80))):
        actions = model.actions()
        if not actions:
            break
        # Closing ends a history: keep it rare, or none gets long.
        names = sorted(name for name in actions if "moved" not in name) or sorted(actions)
        if data.draw(st.integers(0, 39)) == 0:
            names = sorted(actions)
        actions[data.draw(st.sampled_from(names))]()
        model.check_end()
