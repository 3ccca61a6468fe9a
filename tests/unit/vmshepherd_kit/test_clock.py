"""Time, randomness and ids."""

import uuid
from datetime import UTC, timedelta

from vmshepherd_kit.clock import SeededChance, SystemChance, SystemClock


def test_the_wall_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().wall().tzinfo is UTC


def test_elapsed_time_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.elapsed() for _ in range(100)]
    assert readings == sorted(readings)


async def test_sleeping_lets_time_pass() -> None:
    clock = SystemClock()
    before = clock.elapsed()
    await clock.sleep(timedelta(milliseconds=20))
    assert clock.elapsed() > before


async def test_sleeping_for_less_than_nothing_returns_at_once() -> None:
    await SystemClock().sleep(timedelta(seconds=-100))


def test_a_seed_replays_ids_and_numbers_and_another_seed_does_not() -> None:
    def life(seed: int) -> list[object]:
        chance = SeededChance(seed)
        return [chance.uuid(), chance.uniform(0, 1), chance.uuid(), chance.uniform(5, 6)]

    assert life(7) == life(7)
    assert life(7) != life(8)


def test_ids_are_canonical_random_uuids_and_never_repeat() -> None:
    for chance in (SystemChance(), SeededChance(1)):
        ids = [chance.uuid() for _ in range(1000)]
        assert len(set(ids)) == 1000
        assert all(str(uuid.UUID(i)) == i and uuid.UUID(i).version == 4 for i in ids)


def test_uniform_stays_between_its_bounds() -> None:
    for chance in (SystemChance(), SeededChance(1)):
        assert all(2 <= chance.uniform(2, 3) <= 3 for _ in range(1000))
