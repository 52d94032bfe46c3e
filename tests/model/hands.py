"""Random hands on one run: whatever a client, a worker, a timer or the kernel might send, and when.

Every command is decided on a state that must not change by it, applied, sent again, and judged by
the oracle. The same Random makes the same story.
"""

from __future__ import annotations

from contextlib import suppress
from random import Random

from stretto.run.v1 import events_pb2 as ev
from stretto_core.errors import Refusal
from stretto_core.ids import TaskName
from stretto_kernel.domain.run import RunEvent, decide, queries
from stretto_kernel.domain.run import commands as cmd
from stretto_kernel.domain.run.fingerprint import fingerprint
from stretto_kernel.domain.run.refusals import NothingToRetry
from stretto_kernel.domain.run.task import Succeeded

from tests.model.oracle import LogOracle, check_fold, check_state
from tests.model.plans import random_graph, random_task
from tests.model.runs import Story, entry, holder, task

DRIVEN_STEPS_MAX = 900
RETRIES_MAX = 2
BOARD_KEYS = ("context/goal", "progress/percent", "result/answer")
REPEATABLE = (cmd.Requested, cmd.Complete, cmd.Fail, cmd.CancelAttempt, cmd.TimerFired)


class JudgedStory(Story):
    """A story whose every command is checked to be pure, and whose every fact is judged."""

    def __init__(self) -> None:
        super().__init__()
        self.oracle = LogOracle()

    def do(self, command: cmd.Command) -> tuple[RunEvent, ...]:
        before = fingerprint(self.state)
        with suppress(Refusal):
            decide(self.state, command)
        assert fingerprint(self.state) == before, "decide changed the state"
        events = super().do(command)
        if isinstance(command, REPEATABLE):
            assert decide(self.state, command) == (), "a repeated command adds nothing"
        return events

    def record(self, event: RunEvent, request_id: str = "", digest: bytes = b"") -> None:
        name = TaskName(getattr(event, "task", ""))
        spec = self.state.tasks[name].spec if name in self.state.tasks else None
        self.oracle.take(event, spec, stopping=self.state.stopping is not None)
        super().record(event, request_id, digest)


class Hands:
    """Acts on one judged story."""

    ACTIONS = (
        ("lease", 8),
        ("lease_anything", 1),
        ("complete", 6),
        ("fail", 3),
        ("release", 2),
        ("stopped", 2),
        ("lose", 3),
        ("refuse", 1),
        ("spawn", 2),
        ("add", 2),
        ("hold", 1),
        ("lift", 2),
        ("cancel", 0.3),
        ("kill", 0.1),
        ("retry", 1),
        ("put", 2),
        ("delete", 0.5),
        ("wait", 3),
        ("fire", 4),
    )

    def __init__(self, random: Random) -> None:
        self.story = JudgedStory()
        self.armed: set[cmd.Timer] = set()
        graph = random_graph(random)
        self.story.start(graph)
        self.ordinary = [spec.name for spec in graph.tasks if not spec.clean_up]
        self.clean_up = [spec.name for spec in graph.tasks if spec.clean_up]

    def step(self, random: Random) -> None:
        """Do one random thing; refusals are answers like others."""
        names = [name for name, _ in self.ACTIONS]
        self.act(random.choices(names, [weight for _, weight in self.ACTIONS])[0], random)

    def act(self, action: str, random: Random) -> None:
        """Do one kind of thing and judge the state after it."""
        with suppress(Refusal):
            getattr(self, f"_{action}")(random)
        check_state(self.story)

    def finish(self) -> None:
        """Do what shell and workers would: the run ends by what it says it waits for.

        Retried as often as there is something to retry, it ends well: every result is good now.
        """
        self._drive_to_end()
        for _ in range(RETRIES_MAX):
            finished = self._finished()
            try:
                self.story.retry(step_count=7)
            except NothingToRetry:
                return
            self._drive_to_end()
            for name, (activation, phase) in finished.items():
                record = self.story.state.tasks[name]
                assert (record.activation, record.phase) == (activation, phase), "finished stays so"

    def _finished(self) -> dict[TaskName, tuple[int, Succeeded]]:
        return {
            name: (record.activation, record.phase)
            for name, record in self.story.state.tasks.items()
            if isinstance(record.phase, Succeeded) and not record.spec.clean_up
        }

    def _drive_to_end(self) -> None:
        story = self.story
        for _ in range(DRIVEN_STEPS_MAX):
            state = story.state
            if state.end is not None:
                check_fold(story)
                return
            check_state(story)
            for hold in state.holds.placed:
                story.lift(hold.hold_id)
            if not state.sealed and state.stopping is None:
                story.add(sealed=True)
            elif lease := next(queries.every_open_lease(state), None):
                story.complete(lease.task)
            elif offer := next(queries.every_offer(state), None):
                story.now_ns = max(story.now_ns, offer.not_before_ns)
                story.lease(offer.task)
            else:
                due = min(queries.every_due(state), key=lambda each: each.at_ns)
                story.now_ns = max(story.now_ns, due.at_ns)
                assert story.fire(due.timer), "a timer that passed did nothing"
        raise AssertionError(f"no end; it awaits {queries.wake_up(story.state)}")

    def _lease(self, random: Random) -> None:
        offers = [offer.task for offer in queries.every_offer(self.story.state)]
        if offers:
            self.story.lease(random.choice(offers))

    def _lease_anything(self, random: Random) -> None:
        self.story.lease(self._any_task(random), "w2")

    def _complete(self, random: Random) -> None:
        name = self._leased_task(random)
        spec = self.story.state.tasks[TaskName(name)].spec
        children = [task(f"c{index}", may_spawn=True) for index in range(random.randint(0, 2))]
        if len(children) == 2:
            children[1].dependencies.add(task="c0")
        self.story.complete(
            name,
            random.choice(["1", "2"]),
            epoch=self._epoch(name, random),
            spawned=tuple(children) if spec.may_spawn else (),
        )

    def _fail(self, random: Random) -> None:
        name = self._leased_task(random)
        retryable = random.random() < 0.7
        self.story.fail(
            name,
            epoch=self._epoch(name, random),
            retryable=retryable,
            retry_after_s=random.choice([None, None, 1, 90]),
        )

    def _release(self, random: Random) -> None:
        name = self._leased_task(random)
        cause = random.choice([ev.RELEASE_CAUSE_RETURNED, ev.RELEASE_CAUSE_NOT_ACKNOWLEDGED])
        self.story.release(name, epoch=self._epoch(name, random), cause=cause)

    def _stopped(self, random: Random) -> None:
        name = self._leased_task(random)
        self.story.stopped(name, epoch=self._epoch(name, random))

    def _lose(self, random: Random) -> None:
        name = self._leased_task(random)
        self.story.lose(name, epoch=self._epoch(name, random))

    def _refuse(self, random: Random) -> None:
        name = TaskName(self._any_task(random))
        epoch = self._epoch(name, random)
        self.story.do(cmd.RecordRefusal(now_ns=self.story.now_ns, task=name, epoch=epoch))

    def _spawn(self, random: Random) -> None:
        child = task(random.choice(["s0", "s1", "s2"]), may_spawn=True)
        self.story.spawn(self._leased_task(random), child)

    def _add(self, random: Random) -> None:
        ordinary, clean_up = list(self.ordinary), list(self.clean_up)
        spec = random_task(random, f"t{len(ordinary) + len(clean_up)}", ordinary, clean_up)
        if self.story.add(spec, sealed=random.random() < 0.2):
            self.ordinary, self.clean_up = ordinary, clean_up

    def _hold(self, random: Random) -> None:
        self.story.hold(random.choice(["operator", "barrier"]))

    def _lift(self, random: Random) -> None:
        self.story.lift(random.choice(["operator", "barrier"]))

    def _cancel(self, random: Random) -> None:
        self.story.cancel(grace_s=random.choice([None, 0, 2]))

    def _kill(self, random: Random) -> None:
        del random
        self.story.kill()

    def _retry(self, random: Random) -> None:
        names = [name for name in self.story.state.tasks if random.random() < 0.3]
        some = names if random.random() < 0.4 else []
        self.story.retry(*some, step_count=random.choice([1, 3, 1_000]))

    def _put(self, random: Random) -> None:
        name = self._leased_task(random)
        key = random.choice(BOARD_KEYS)
        scoped = f"{name}:{key}" if random.random() < 0.8 else key
        writer = holder(name, self._epoch(name, random)) if random.random() < 0.7 else None
        self.story.put(entry(scoped, expected=self._expected(scoped, random)), writer=writer)

    def _delete(self, random: Random) -> None:
        board = self.story.state.board
        keys = [*BOARD_KEYS, *(board.entries if board else ())]
        key = random.choice(keys)
        self.story.delete(key, expected=self._expected(key, random))

    def _expected(self, key: str, random: Random) -> int | None:
        board = self.story.state.board
        current = board.entries.get(key) if board else None
        return random.choice([None, 0, 0 if current is None else current.revision])

    def _wait(self, random: Random) -> None:
        self._arm()
        self.story.wait(random.choice([0.1, 1, 3, 10]))

    def _fire(self, random: Random) -> None:
        """Any timer ever armed: due, early, late or twice; or the one that passes next."""
        self._arm()
        if not self.armed:
            return
        due = min(queries.every_due(self.story.state), key=lambda each: each.at_ns, default=None)
        if due is not None and random.random() < 0.5:
            self.story.now_ns = max(self.story.now_ns, due.at_ns)
            self.story.fire(due.timer)
        else:
            self.story.fire(random.choice(sorted(self.armed, key=repr)))

    def _arm(self) -> None:
        self.armed.update(due.timer for due in queries.every_due(self.story.state))

    def _any_task(self, random: Random) -> str:
        return random.choice(list(self.story.state.tasks))

    def _leased_task(self, random: Random) -> str:
        leased = list(self.story.state.leased_tasks)
        return (
            random.choice(leased) if leased and random.random() < 0.85 else self._any_task(random)
        )

    def _epoch(self, name: str, random: Random) -> int:
        back = random.choices([0, 1, 2, -1], [8, 2, 1, 1])[0]
        return max(1, self.story.state.tasks[TaskName(name)].epoch - back)
