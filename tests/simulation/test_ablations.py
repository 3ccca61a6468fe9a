"""Each protective mechanism is needed: without it, the simulator finds what it protects from."""

from __future__ import annotations

import pytest

from tests.simulation.ablations import ABLATIONS, Ablation, switched_off
from tests.simulation.simulate import Verdict, simulate

# Many seeds, on a machine that may have little time for them.
pytestmark = pytest.mark.timeout(900)

MOST_SEEDS = 128


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda each: each.name.replace(" ", "-"))
def test_without_it_the_simulator_finds_a_violation(ablation: Ablation) -> None:
    with switched_off(ablation):
        found = _first_violation(ablation)
    assert found is not None, f"{MOST_SEEDS} seeds, and nobody missed: {ablation.name}"
    assert found.violations[0].invariant != "BUG", found.violations[0]


def test_ten_mechanisms_and_more_are_tried() -> None:
    assert len(ABLATIONS) >= 10


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda each: each.name.replace(" ", "-"))
def test_with_it_the_same_seed_holds(ablation: Ablation) -> None:
    verdict = simulate(ablation.seed, ablation.course, shape=ablation.shape(ablation.seed))
    assert verdict.is_clean, verdict.violations


def _first_violation(ablation: Ablation) -> Verdict | None:
    for seed in range(ablation.seed, ablation.seed + MOST_SEEDS):
        verdict = simulate(seed, ablation.course, shape=ablation.shape(seed))
        if not verdict.is_clean:
            return verdict
    return None
