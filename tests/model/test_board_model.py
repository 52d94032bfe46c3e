"""Random writes on a blackboard against a table of registers: what was accepted, and nothing else.

The oracle is what a reader of the contract would write: a dict of registers, compare-and-set by
hand. Whatever happened, the fold of the log is the board, and no revision was used twice.
"""

from __future__ import annotations

from contextlib import suppress

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from stretto.run.v1 import plan_pb2 as plan
from stretto_core.errors import Refusal
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run.blackboard_keys import parse_key
from stretto_kernel.domain.run.fingerprint import fingerprint

from tests.model.runs import Story, entry, fold, holder, started, task

TASKS = ("x", "y")
KEYS = ("context/a", "x:progress/a", "x:result/a", "y:progress/a", "y:verifier/a")
keys = st.sampled_from(KEYS)
values = st.sampled_from(("1", "2", '{"a": 1}'))
epochs_back = st.sampled_from((0, 0, 0, 1))
writers = st.sampled_from((None, *TASKS))


class BoardModel(RuleBasedStateMachine):
    """One run, two tasks, five registers."""

    @initialize()
    def start(self) -> None:
        retry = plan.RetryPolicy(max_attempts=1_000)
        self.story: Story = started(task("x", retry=retry), task("y", retry=retry))
        self.registers: dict[str, tuple[int, str]] = {}
        self.used: set[int] = set()

    @rule(name=st.sampled_from(TASKS))
    def lease(self, name: str) -> None:
        with suppress(Refusal):
            self.story.lease(name)

    @rule(name=st.sampled_from(TASKS))
    def lose(self, name: str) -> None:
        self.story.lose(name)

    @rule(key=keys, value=values, writer=writers, back=epochs_back, seen=st.integers(-1, 2))
    def put(self, key: str, value: str, writer: str | None, back: int, seen: int) -> None:
        expected = self._expected(key, seen)
        may = self._may(key, expected, writer, back)
        try:
            self.story.put(entry(key, value, expected=expected), writer=self._as(writer, back))
        except Refusal:
            assert not may
        else:
            assert may
            self._changed(self.story.state.version)
            self.registers[key] = (self.story.state.version, value)

    @rule(key=keys, writer=writers, back=epochs_back, seen=st.integers(-1, 2))
    def delete(self, key: str, writer: str | None, back: int, seen: int) -> None:
        expected = self._expected(key, seen)
        may = self._may(key, expected, writer, back)
        try:
            deleted = self.story.delete(key, expected=expected, writer=self._as(writer, back))
        except Refusal:
            assert not may
            return
        assert may
        assert bool(deleted) == (key in self.registers)
        if self.registers.pop(key, None):
            self._changed(self.story.state.version)

    @rule(end=st.sampled_from(("kill", "retry")))
    def end_or_go_on(self, end: str) -> None:
        with suppress(Refusal):
            self.story.kill() if end == "kill" else self.story.retry()

    @invariant()
    def the_board_is_the_registers(self) -> None:
        if not hasattr(self, "story"):
            return
        board = self.story.state.board
        shown = {} if board is None else board.entries
        assert {
            key: (each.revision, each.value.json) for key, each in shown.items() if each.value
        } == self.registers
        if board is not None:
            assert board.size_bytes == sum(each.size_bytes for each in board.entries.values())
        assert fingerprint(fold(self.story.log)) == fingerprint(self.story.state)

    def _expected(self, key: str, seen: int) -> int | None:
        """-1: not compared; 0: as it is; else something it is not."""
        current, _ = self.registers.get(key, (0, ""))
        return None if seen < 0 else current + seen

    def _may(self, key: str, expected: int | None, writer: str | None, back: int) -> bool:
        current, _ = self.registers.get(key, (0, ""))
        parsed = parse_key(key)
        assert parsed is not None
        if parsed.namespace == "result" and expected is None:
            return False
        state = self.story.state
        if writer is None:
            allowed = state.end is None
        else:
            holds = writer in state.leased_tasks and back == 0 and state.end is None
            allowed = holds and parsed.task == writer and parsed.namespace != "verifier"
        return allowed and expected in (None, current)

    def _as(self, writer: str | None, back: int) -> cmd.LeaseHolder | None:
        return None if writer is None else holder(writer, self.story.epoch(writer) - back)

    def _changed(self, revision: int) -> None:
        assert revision not in self.used, "a revision is never used again"
        self.used.add(revision)


TestBoardModel = BoardModel.TestCase
TestBoardModel.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
