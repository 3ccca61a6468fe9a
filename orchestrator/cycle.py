"""One look at one preset: lock -> observe -> decide -> act -> recall.

Level-triggered: every cycle observes afresh, so a lost event costs time and a crash anywhere is
healed by the next one. A cycle never raises: what keeps it from ending well becomes a condition of
its preset, and other presets do not notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from vmshepherd_kit import log
from vmshepherd_kit.errors import ShepherdError, StaleFencingToken

from . import views
from .act import Hands, Order, act
from .archive import Archive
from .authority import Authority
from .board import Board, Phase, Shown, carried, failed, since_when
from .clients.health import Health
from .clients.presets import Declared, Presets
from .clients.runtime import Held
from .config import Config
from .decide import decide
from .desk import Desk
from .model import (
    Fate,
    Memory,
    Observation,
    Outcome,
    Plan,
    PresetName,
    Refusal,
    Spec,
    Terminate,
    VmId,
    Wishes,
)
from .narrate import changes, conditions, report
from .observe import Known, Seen, observe
from .recall import recall

# How often a preset is looked at whose cycle cannot be completed.
RETRY_AFTER = timedelta(seconds=2)
# And one that is kept from acting.
BLOCKED_LOOK = timedelta(seconds=5)
# What a gate says to a termination that it will never let pass; anything else may pass later.
_NEVER = {"INVALID_ARGUMENT", "NOT_FOUND", "NOT_OURS", "NOT_THE_SAME_VM", "PROTECTED"}

# Refusals that time alone will end: what they wait for is under way.
_ON_THE_WAY = {"AWAITING_VMS", "BUDGET_SPENT", "SLOW_START", "WAITING_FOR_REPLACEMENT"}

_log = log.get("cycle")


@dataclass(frozen=True, slots=True)
class _Turn:
    """One preset in one cycle."""

    name: PresetName
    declared: Declared
    spec: Spec
    fencing_token: int


@dataclass(slots=True, kw_only=True)
class Cycles:
    """Everything that a cycle needs; one for all presets."""

    config: Config
    presets: Presets
    authority: Authority
    archive: Archive
    desk: Desk
    health: Health
    hands: Hands
    board: Board

    async def run(self, name: PresetName) -> timedelta | None:
        """One cycle; when to look again, None when the preset is no longer declared."""
        declared = self.presets.get(name)
        if declared is None and not self.presets.is_synced:
            return RETRY_AFTER
        if declared is None:
            await self._let_go(name)
            return None
        if declared.spec is None:
            await self._cannot(name, "NEVER_READ", "its file has never been read successfully")
            return self.config.interval
        try:
            return await self._run(name, declared, declared.spec)
        except StaleFencingToken as e:
            await self.authority.yield_to(name, e)
            await self._cannot(name, e.reason, e.message)
        except ShepherdError as e:
            await self._cannot(name, e.reason, e.message)
        except Exception:  # noqa: BLE001  the boundary: a bug in one cycle stops no other preset
            _log.exception("cycle failed by a bug", preset=name)
            message = "the cycle failed by a bug; the log has the traceback"
            await self._cannot(name, "INTERNAL", message)
        return RETRY_AFTER

    async def plan(
        self, name: PresetName, declared: Declared, spec: Spec
    ) -> tuple[Seen, Plan, timedelta]:
        """What a cycle would do now, and when the next one would come, without doing it."""
        token = self.authority.token(name)
        if token is None:
            memory = await self.archive.peek(name)
        else:
            memory = await self.archive.load(name, token)
        seen = await self._observe(_Turn(name, declared, spec, token or 0), memory)
        plan = decide(seen.observation)
        refusals = (*plan.refusals, *seen.notes)
        phase = _phase(spec, seen.observation.wishes, plan, refusals, now=self._now())
        return seen, plan, self._next_look(declared, plan, phase)

    async def _run(self, name: PresetName, declared: Declared, spec: Spec) -> timedelta:
        started = self.hands.clock.elapsed()
        token = await self.authority.hold(name)
        if isinstance(token, Held):
            shown = Shown(phase=Phase.ELSEWHERE, holder=token.owner, ended=self._now())
            self.board.show(name, shown)
            return min(max(token.remaining, self.config.soon), self.config.interval)
        turn = _Turn(name, declared, spec, token)
        seen = await self._observe(turn, await self.archive.load(name, token))
        plan = decide(seen.observation)
        await self._tell_changes(turn, seen, plan)
        memory, outcomes = await act(
            Order(
                preset=name,
                declared=declared,
                provider=seen.provider,
                fencing_token=token,
                plan=plan,
            ),
            self.hands,
            lambda sent: self.archive.keep(name, sent),
        )
        memory = recall(replace(plan, memory=memory), outcomes, spec=spec, now=self._now())
        shown = self._shown(turn, seen, plan, outcomes)
        look = self._next_look(declared, plan, shown.phase)
        now = self._now()
        shown = replace(
            shown,
            ended=now,
            lasted=self.hands.clock.elapsed() - started,
            next_look=now + look,
        )
        await self.archive.keep(
            name,
            memory,
            shown=shown.fingerprint,
            views=lambda: views.stored(name, declared, shown),
        )
        await self._tell_outcomes(turn, outcomes, shown)
        self.board.show(name, shown)
        await self._settle_wishes(name, seen.observation, plan, outcomes)
        return look

    async def _observe(self, turn: _Turn, memory: Memory) -> Seen:
        known = Known(
            name=turn.name,
            spec=turn.spec,
            declared=turn.declared,
            fencing_token=turn.fencing_token,
            memory=memory,
            wishes=await self.desk.wishes(turn.name),
            fleet=self.board.fleet(),
        )
        return await observe(
            known, iaas=self.hands.iaas, health=self.health, clock=self.hands.clock
        )

    def _shown(self, turn: _Turn, seen: Seen, plan: Plan, outcomes: Sequence[Outcome]) -> Shown:
        """What is to be shown of the preset after this cycle."""
        now, before = seen.observation.now, self.board.get(turn.name) or Shown()
        wishes = seen.observation.wishes
        refusals = (*plan.refusals, *seen.notes, *_failures(outcomes))
        if turn.spec.check is not None:
            self.board.count_probed(turn.name, plan.judged, now=now)
        return Shown(
            phase=_phase(turn.spec, wishes, plan, refusals, now=now),
            conditions=carried(before.conditions, refusals, now=now),
            judged=plan.judged,
            since=since_when(before.since, plan.judged, now=now),
            plan=plan,
            pause=wishes.pause if wishes.pause and not wishes.pause.is_over(now) else None,
            provider=seen.provider,
            fencing_token=turn.fencing_token,
            holder=self.authority.owner,
            probe_messages={
                vm_id: (probe.verdict.name, probe.message)
                for vm_id, probe in seen.observation.probes.items()
            },
        )

    def _next_look(self, declared: Declared, plan: Plan, phase: Phase) -> timedelta:
        interval = declared.interval or self.config.interval
        if phase is Phase.BLOCKED:
            # Something is missing and may not be made now: no reason to ask the cloud all the time.
            return min(BLOCKED_LOOK, interval)
        if not plan.is_settled or phase is Phase.CONVERGING:
            return min(self.config.soon, interval)
        return interval

    async def _tell_changes(self, turn: _Turn, seen: Seen, plan: Plan) -> None:
        """What happened to the VMs, before anything is done about it."""
        before = self.board.get(turn.name) or Shown()
        tellings = list(changes(before.statuses, seen.observation, plan))
        await self.hands.journal.tell(turn.name, tellings, fencing_token=turn.fencing_token)
        since = since_when(before.since, plan.judged, now=seen.observation.now)
        self.board.show(turn.name, replace(before, judged=plan.judged, since=since))

    async def _tell_outcomes(self, turn: _Turn, outcomes: Sequence[Outcome], shown: Shown) -> None:
        before = self.board.get(turn.name) or Shown()
        refusals = [Refusal(each.code, each.message) for each in shown.conditions]
        tellings = [telling for each in outcomes if (telling := report(each))]
        tellings += conditions((each.code for each in before.conditions), refusals)
        await self.hands.journal.tell(turn.name, tellings, fencing_token=turn.fencing_token)
        if outcomes:
            _log.info(
                "cycle acted",
                preset=turn.name,
                created=_count(outcomes, Fate.DONE) - _ended(outcomes),
                terminated=_ended(outcomes),
                not_done=len(outcomes) - _count(outcomes, Fate.DONE),
                because="; ".join(each.message for each in refusals) or "as declared",
            )

    async def _settle_wishes(
        self, name: PresetName, seen: Observation, plan: Plan, outcomes: Sequence[Outcome]
    ) -> None:
        """Strike wishes that are fulfilled, or refused for good: a person has been told."""
        present = {judged.vm.vm_id for judged in plan.judged}
        answered: set[VmId] = {
            each.step.vm.vm_id
            for each in outcomes
            if isinstance(each.step, Terminate)
            and (each.fate is Fate.DONE or (each.fate is Fate.FAILED and each.reason in _NEVER))
        }
        done = [
            wish.vm_id
            for wish in seen.wishes.terminations
            if wish.vm_id in answered or (seen.complete and wish.vm_id not in present)
        ]
        if not done:
            return
        try:
            await self.desk.forget(name, done)
        except ShepherdError as e:
            # The next cycle finds the same, and strikes them then.
            _log.warning("wishes were not struck", preset=name, error=e.message)

    async def _let_go(self, name: PresetName) -> None:
        """The preset is not declared any more: its VMs run on, nobody touches them."""
        message = "removed from its source: its VMs run on, unmanaged"
        await self._cannot(name, "PRESET_REMOVED", message)
        shown = self.board.get(name) or Shown()
        self.board.show(name, replace(shown, phase=Phase.REMOVED, fencing_token=None, holder=""))
        self.archive.forget(name)
        await self.authority.release(name)

    async def _cannot(self, name: PresetName, code: str, message: str) -> None:
        before = self.board.get(name)
        self.board.show(name, failed(before, code, message, now=self._now()))
        if before is None or code not in {each.code for each in before.conditions}:
            _log.warning("cycle cannot be completed", preset=name, code=code, error=message)
            await self.hands.journal.tell(name, conditions((), [Refusal(code, message)]))

    def _now(self) -> datetime:
        return self.hands.clock.wall()


def _failures(outcomes: Sequence[Outcome]) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(each.reason or each.fate.name, each.message)
        for each in outcomes
        if each.fate in {Fate.FAILED, Fate.UNKNOWN}
    )


def _phase(
    spec: Spec, wishes: Wishes, plan: Plan, refusals: Sequence[Refusal], *, now: datetime
) -> Phase:
    pause = wishes.pause
    if not spec.managed:
        return Phase.UNMANAGED
    if pause and not pause.processes and not pause.is_over(now):
        return Phase.PAUSED
    if plan.steps:
        return Phase.CONVERGING
    # The breaker opens for all presets at once; those whose own VMs serve want nothing from it.
    is_served = plan.is_settled and all(each.is_ready for each in plan.judged)
    harmless = _ON_THE_WAY | ({"BREAKER_OPEN"} if is_served else set())
    if any(each.code not in harmless for each in refusals):
        return Phase.BLOCKED
    return Phase.STEADY if plan.is_settled else Phase.CONVERGING


def _count(outcomes: Sequence[Outcome], fate: Fate) -> int:
    return sum(1 for each in outcomes if each.fate is fate)


def _ended(outcomes: Sequence[Outcome]) -> int:
    done = (each for each in outcomes if each.fate is Fate.DONE)
    return sum(1 for each in done if isinstance(each.step, Terminate))
