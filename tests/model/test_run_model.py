"""Random command lists against the invariants of a run.

Hypothesis chooses the order of things; long seeded walks add depth, and a seed repeats one.
Whatever happened, the run can afterwards be driven to its end by what it says it waits for.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.model.hands import Hands

ACTIONS = [name for name, _ in Hands.ACTIONS]
WALKS = 160
WALK_STEPS = 45
sources = st.randoms(use_true_random=True)


class RunModel(RuleBasedStateMachine):
    """One run under random hands."""

    @initialize(random=sources)
    def start(self, random: Random) -> None:
        self.hands = Hands(random)

    @rule(random=sources)
    def work(self, random: Random) -> None:
        self.hands.act(random.choice(["lease", "lease", "complete"]), random)

    @rule(action=st.sampled_from(ACTIONS), random=sources)
    def act(self, action: str, random: Random) -> None:
        self.hands.act(action, random)

    def teardown(self) -> None:
        if hasattr(self, "hands"):
            self.hands.finish()


TestRunModel = RunModel.TestCase
TestRunModel.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # Shrinking a source of chance takes minutes.
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("block", range(4))
def test_no_walk_breaks_an_invariant(block: int) -> None:
    for seed in range(block * WALKS // 4, (block + 1) * WALKS // 4):
        random = Random(seed)
        hands = Hands(random)
        try:
            for _ in range(WALK_STEPS):
                hands.step(random)
            hands.finish()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
