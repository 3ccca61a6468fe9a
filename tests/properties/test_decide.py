"""What holds for every observation, be the world as it may."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from orchestrator.decide import decide
from orchestrator.model import Observation
from tests.properties.states import observations
from tests.support.safety import check_plan

# Hundreds of examples, on a machine that may have little time for them.
pytestmark = pytest.mark.timeout(600)


@given(observations())
@settings(max_examples=500)
def test_every_plan_is_safe_and_says_why_whatever_was_seen(seen: Observation) -> None:
    check_plan(seen, decide(seen))
