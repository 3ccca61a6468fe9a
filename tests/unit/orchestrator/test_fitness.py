from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from orchestrator.beside import beside
from orchestrator.fitness import LOOK, PATIENCE, Fitness
from vmshepherd_kit.errors import Internal, OutcomeUnknown, ShepherdError, Unavailable
from vmshepherd_kit.testing import FakeClock


@dataclass
class Services:
    """Two services, and what they answer at present."""

    clock: FakeClock = field(default_factory=FakeClock)
    errors: dict[str, ShepherdError] = field(default_factory=dict)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Fitness]:
        asking = {"iaas": lambda: self.ask("iaas"), "health": lambda: self.ask("health")}
        fitness = Fitness(asking, clock=self.clock)
        async with beside(fitness.watch, clock=self.clock):
            await self.clock.advance(timedelta(0))
            yield fitness

    async def ask(self, name: str) -> None:
        if name in self.errors:
            raise self.errors[name]


async def test_who_reaches_all_services_is_fit() -> None:
    async with Services().watched() as fitness:
        assert fitness.is_fit()


@pytest.mark.parametrize("error", [Unavailable("away"), OutcomeUnknown("no answer")])
async def test_who_cannot_reach_one_of_them_for_long_is_not_fit(error: ShepherdError) -> None:
    services = Services()
    async with services.watched() as fitness:
        services.errors["iaas"] = error
        await services.clock.advance(PATIENCE)
        # It was well at the beginning: the patience counts from the first silence.
        assert fitness.is_fit()
        await services.clock.advance(LOOK)
        assert not fitness.is_fit()
        services.errors.clear()
        await services.clock.advance(LOOK)
        assert fitness.is_fit()


async def test_a_service_that_answers_with_an_error_is_reached() -> None:
    services = Services(errors={"iaas": Internal("a bug")})
    async with services.watched() as fitness:
        await services.clock.advance(PATIENCE * 3)
        assert fitness.is_fit()


async def test_a_service_that_comes_back_in_between_was_never_long_away() -> None:
    services = Services()
    async with services.watched() as fitness:
        for _ in range(5):
            services.errors["iaas"] = Unavailable("away")
            await services.clock.advance(LOOK * 2)
            services.errors.clear()
            await services.clock.advance(LOOK)
        assert fitness.is_fit()
