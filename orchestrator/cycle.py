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
from vmshepherd_kit.errors import Refused, ShepherdError, StaleFencingToken

from . import records, views
from .act import act
from .archive import Archive, Legacy
from .authority import Authority
from .board import Board, Phase, Shown, carried, failed, since_when
from .clients.health import Health
from .clients.presets import Presets
from .clients.runtime import Held
from .config import Config
from .decide import decide
from .desk import Desk
from .hands import Hands, Order
from .model import (
    Create,
    Fate,
    Keep,
    Memory,
    Observation,
    Outcome,
    Plan,
    PresetName,
    Refusal,
    Repair,
    Terminate,
    VmId,
    VmStatus,
)
from .narrate import Telling, changes, conditions, edits, probe_changes, report
from .observe import Known, Seen, observe
from .phases import failures, phase_of
from .recall import recall
from .removals import Removals
from .replicas import Replicas
from .standing import Standing, standing, why_nobody_can_tell
from .turn import Turn, turn_of
from .words import probe_words

# How often a preset is looked at whose cycle cannot be completed.
RETRY_AFTER = timedelta(seconds=2)
# And one that is kept from acting.
BLOCKED_LOOK = timedelta(seconds=5)
# And one that is removed, whose VMs only run on, or that another replica looks after.
REMOVED_LOOK = timedelta(minutes=1)
ELSEWHERE_LOOK = timedelta(minutes=1)
# And one that is being handed over: within a moment, unless a cycle of it is under way.
HANDED_OVER_LOOK = timedelta(milliseconds=250)
# What a gate says to a termination that it will never let pass; anything else may pass later.
_NEVER = {"BAD_REQUEST", "NOT_FOUND", "NOT_OURS", "NOT_THE_SAME_VM", "PROTECTED"}

_log = log.get("cycle")


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
    removals: Removals
    replicas: Replicas

    async def run(self, name: PresetName) -> timedelta | None:
        """One cycle; when to look again, None when nothing of the preset is left to look after."""
        declared = self.presets.get(name)
        if declared is None and not self.presets.is_synced:
            return RETRY_AFTER
        try:
            if declared is not None and declared.spec is None:
                return await self._unread(name)
            return await (self._run(name) if self._is_ours(name) else self._leave(name))
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

    async def plan(self, name: PresetName) -> tuple[Seen, Plan, timedelta]:
        """What a cycle would do now, and when the next one would come, without doing it.

        Refused when nothing is known of a removed preset by which anything could be done.
        """
        token = self.authority.token(name)
        if token is None:
            memory, legacy = await self.archive.peek(name)
        else:
            memory = await self.archive.load(name, token)
            legacy = self.archive.legacy(name)
        turn = self._turn_of(name, legacy, token or 0)
        if turn is None:
            raise Refused(f"preset {name} is removed and left alone", reason="PRESET_REMOVED")
        turn = await self._with_wishes(turn)
        seen = await self._observe(turn, await self._standing(turn), memory)
        plan = decide(seen.observation)
        phase = phase_of(seen.observation, plan, (*plan.refusals, *seen.notes))
        return seen, plan, self._next_look(turn, seen, plan, phase)

    async def _run(self, name: PresetName) -> timedelta | None:
        started = self.hands.clock.elapsed()
        token = await self.authority.hold(name)
        if isinstance(token, Held):
            self.board.leave_to(name, token.owner, now=self._now())
            return self._until_free(token)
        memory = await self.archive.load(name, token)
        turn = await self._begun(name, token, memory)
        if turn is None:
            await self._let_go(name, memory)
            return None
        stands = await self._standing(turn)
        seen = await self._observe(turn, stands, memory)
        if stands and self._is_news(name, stands):
            # It came back while the cloud was asked, or may have: nothing is decided by that.
            return self.config.soon
        self.archive.bequeath(name, stands.legacy if stands else _legacy(turn, seen))
        plan = decide(seen.observation)
        memory, outcomes = await self._carried_out(turn, seen, plan)
        if turn.is_removed and _is_over(seen.observation, plan, memory):
            await self._end(name)
            return None
        shown = self._shown(turn, seen, plan, outcomes)
        look = self._next_look(turn, seen, plan, shown.phase)
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
            views=lambda: views.stored(name, self.presets.get(name), shown),
        )
        await self._tell_outcomes(turn, outcomes, shown)
        self.board.show(name, shown)
        await self._settle_wishes(name, seen.observation, plan, outcomes)
        return look

    def _is_ours(self, name: PresetName) -> bool:
        """Whether this replica looks after a preset.  SessionLost while it may not act at all."""
        self.authority.remaining()
        return self.replicas.home(name) == self.authority.owner

    async def _leave(self, name: PresetName) -> timedelta:
        """Leave a preset to the replica that looks after it, between two cycles."""
        home = self.replicas.home(name)
        if self.authority.token(name) is not None:
            self.archive.forget(name)
            await self.authority.release(name)
            _log.info("preset handed over", preset=name, to=home or "nobody yet")
        self.board.leave_to(name, home, now=self._now())
        return ELSEWHERE_LOOK if home else self.config.soon

    def _until_free(self, held: Held) -> timedelta:
        """When to ask again for a lock; one whose holder is alive is being handed over."""
        if self.replicas.knows(held.owner):
            return min(HANDED_OVER_LOOK, self.config.soon)
        return min(max(held.remaining, self.config.soon), self.config.interval)

    async def _begun(self, name: PresetName, token: int, memory: Memory) -> Turn | None:
        """The turn of a preset that is held; None when there is nothing to go by.

        Whoever approved something before the preset was removed, or came back, meant another thing.
        """
        turn = self._turn_of(name, self.archive.legacy(name), token)
        if turn is None:
            return None
        if turn.is_news:
            await self.desk.strike_approval(name)
        if not turn.is_removed:
            self.removals.revive(name)
            await self._restored(name, memory)
        return await self._with_wishes(turn)

    def _turn_of(self, name: PresetName, legacy: Legacy, token: int) -> Turn | None:
        declared, last = self.presets.get(name), self.presets.last(name)
        return turn_of(name, declared, legacy, fencing_token=token, last=last)

    async def _with_wishes(self, turn: Turn) -> Turn:
        wishes = await self.desk.wishes(turn.name)
        if turn.is_news:
            # A plan goes by no approval that the cycle is about to strike.
            wishes = replace(wishes, approved_count=None)
        return replace(turn, wishes=wishes)

    async def _unread(self, name: PresetName) -> timedelta:
        """A preset that is declared, nobody knows how."""
        token = self.authority.token(name)
        if token is not None:
            await self._restored(name, await self.archive.load(name, token))
        await self._cannot(name, "NEVER_READ", "its file has never been read successfully")
        return self.config.interval

    async def _restored(self, name: PresetName, memory: Memory) -> None:
        """Have it written at once that a preset is declared: whatever keeps the cycle from its end,
        a removal that comes later has a grace of its own.
        """
        legacy = self.archive.legacy(name)
        if legacy.removed is not None:
            self.archive.bequeath(name, Legacy(legacy.will))
            await self.archive.keep(name, memory)

    def _is_news(self, name: PresetName, stands: Standing) -> bool:
        is_unsure = bool(why_nobody_can_tell(self.presets)) and not stands.removal.held_back
        return is_unsure or self.presets.get(name) is not None

    async def _carried_out(
        self, turn: Turn, seen: Seen, plan: Plan
    ) -> tuple[Memory, Sequence[Outcome]]:
        """What is to be remembered, and what became of every step."""
        await self._tell_changes(turn, seen, plan)
        memory, outcomes = await act(
            Order(
                preset=turn.name,
                declared=turn.declared,
                provider=seen.provider,
                fencing_token=turn.fencing_token,
                seen=seen.observation,
                plan=plan,
            ),
            self.hands,
            lambda sent: self.archive.keep(turn.name, sent),
        )
        memory = recall(replace(plan, memory=memory), outcomes, spec=turn.spec, now=self._now())
        return memory, outcomes

    async def _observe(self, turn: Turn, stands: Standing | None, memory: Memory) -> Seen:
        known = Known(
            name=turn.name,
            spec=turn.spec,
            declared=turn.declared,
            fencing_token=turn.fencing_token,
            memory=memory,
            wishes=turn.wishes,
            fleet=self.board.fleet(self.config.breaker, self.replicas.others),
            removal=stands.removal if stands else None,
            former_provider=turn.former_provider,
        )
        return await observe(
            known, iaas=self.hands.iaas, health=self.health, clock=self.hands.clock
        )

    async def _standing(self, turn: Turn) -> Standing | None:
        """How the removal of a preset stands; None of one that is declared."""
        if not turn.is_removed:
            return None
        return await standing(
            turn,
            presets=self.presets,
            removals=self.removals,
            percent=self.config.removals.percent,
            clock=self.hands.clock,
        )

    def _shown(self, turn: Turn, seen: Seen, plan: Plan, outcomes: Sequence[Outcome]) -> Shown:
        """What is to be shown of the preset after this cycle."""
        now, before = seen.observation.now, self.board.get(turn.name) or Shown()
        wishes = seen.observation.wishes
        refusals = (*plan.refusals, *seen.notes, *failures(outcomes))
        if turn.spec.check is not None:
            window, lost = self.config.breaker.window, plan.memory.deletions
            self.board.count_probed(turn.name, plan.judged, lost=lost, window=window, now=now)
        return Shown(
            phase=phase_of(seen.observation, plan, refusals),
            conditions=carried(before.conditions, refusals, now=now),
            judged=plan.judged,
            since=since_when(before.since, plan.judged, now=now),
            plan=plan,
            pause=wishes.pause if wishes.pause and not wishes.pause.is_over(now) else None,
            provider=seen.provider,
            fencing_token=turn.fencing_token,
            holder=self.authority.owner,
            probe_messages=probe_words(seen.observation.probes),
            protections=wishes.protections,
            keep_failed_time=turn.spec.policy.keep_failed_time,
        )

    def _next_look(self, turn: Turn, seen: Seen, plan: Plan, phase: Phase) -> timedelta:
        interval = turn.declared.interval or self.config.interval
        if phase is Phase.REMOVED and _rests(plan):
            return min(max(REMOVED_LOOK, interval), _grace_left(seen.observation))
        if phase is Phase.BLOCKED:
            # Something is missing and may not be made now: no reason to ask the cloud all the time.
            return min(BLOCKED_LOOK, interval)
        if not plan.is_settled or phase is Phase.CONVERGING:
            return min(self.config.soon, interval)
        return interval

    async def _tell_changes(self, turn: Turn, seen: Seen, plan: Plan) -> None:
        """What happened to the preset and its VMs, before anything is done about it."""
        before = self.board.get(turn.name) or Shown()
        tellings = [
            *edits(turn.former_hash, seen.observation, plan),
            *changes(before.statuses, seen.observation, plan),
            *probe_changes(before.probe_messages, seen.observation),
        ]
        await self.hands.journal.tell(turn.name, tellings, fencing_token=turn.fencing_token)
        since = since_when(before.since, plan.judged, now=seen.observation.now)
        told = replace(before, judged=plan.judged, since=since)
        said = probe_words(seen.observation.probes)
        self.board.show(turn.name, replace(told, probe_messages=said))

    async def _tell_outcomes(self, turn: Turn, outcomes: Sequence[Outcome], shown: Shown) -> None:
        before = self.board.get(turn.name) or Shown()
        refusals = [Refusal(each.code, each.message) for each in shown.conditions]
        tellings = [telling for each in outcomes if (telling := report(each))]
        tellings += conditions((each.code for each in before.conditions), refusals)
        await self.hands.journal.tell(turn.name, tellings, fencing_token=turn.fencing_token)
        if outcomes:
            _log.info(
                "cycle acted",
                preset=turn.name,
                created=_done(outcomes, Create),
                terminated=_done(outcomes, Terminate),
                repaired=_done(outcomes, Repair),
                kept=_done(outcomes, Keep),
                not_done=sum(1 for each in outcomes if each.fate is not Fate.DONE),
                because="; ".join(each.message for each in refusals) or "as declared",
            )

    async def _settle_wishes(
        self, name: PresetName, seen: Observation, plan: Plan, outcomes: Sequence[Outcome]
    ) -> None:
        """Strike wishes that are fulfilled, or refused for good: a person has been told.

        Protections go with the VMs that they were for.
        """
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
        gone = seen.wishes.protections - present if seen.complete else frozenset()
        # An approval is for one change: kept, it would let the same typing error pass one day.
        is_used_up = seen.wishes.approved_count is not None and _is_count_decided(seen)
        try:
            if done or gone:
                await self.desk.forget(name, done, gone=gone)
            if is_used_up:
                await self.desk.strike_approval(name, seen.wishes.approved_count)
        except ShepherdError as e:
            # The next cycle finds the same, and strikes them then.
            _log.warning("wishes were not struck", preset=name, error=e.message)

    async def _let_go(self, name: PresetName, memory: Memory) -> None:
        """A removed preset without a will: nothing is known by which anything could be done."""
        if not memory.vms and not memory.intents:
            await self._forget(name)
            return
        message = "removed from its source: its VMs run on, unmanaged"
        await self._cannot(name, "PRESET_REMOVED", message)
        shown = self.board.get(name) or Shown()
        self.board.show(name, replace(shown, phase=Phase.REMOVED, fencing_token=None, holder=""))
        self.archive.forget(name)
        await self.authority.release(name)

    async def _end(self, name: PresetName) -> None:
        """Nothing is left of a removed preset, so nothing is remembered of it, nor wished for."""
        await self.desk.clear(name)
        await self.archive.clear(name)
        before = self.board.get(name) or Shown()
        ended = [Telling(kind="PRESET_ENDED", message="removed, and no VM of it is left")]
        ended += conditions((each.code for each in before.conditions), ())
        await self.hands.journal.tell(name, ended)
        await self._forget(name)

    async def _forget(self, name: PresetName) -> None:
        self.removals.end(name)
        self.board.forget(name)
        self.archive.forget(name)
        await self.authority.release(name)

    async def _cannot(self, name: PresetName, code: str, message: str) -> None:
        before, is_held = self.board.get(name), self.authority.token(name) is not None
        self.board.show(name, failed(before, code, message, is_held=is_held, now=self._now()))
        if before is None or code not in {each.code for each in before.conditions}:
            _log.warning("cycle cannot be completed", preset=name, code=code, error=message)
            await self.hands.journal.tell(name, conditions((), [Refusal(code, message)]))

    def _now(self) -> datetime:
        return self.hands.clock.wall()


def _legacy(turn: Turn, seen: Seen) -> Legacy:
    """What is to become of a declared preset once it is removed."""
    will = records.will(turn.declared)
    # The default may be another one by then.
    will.provider = seen.provider
    return Legacy(will)


def _rests(plan: Plan) -> bool:
    """Whether nothing happens to a removed preset, and nothing is on its way out."""
    return plan.is_settled and all(j.status is not VmStatus.DELETING for j in plan.judged)


def _grace_left(seen: Observation) -> timedelta:
    """How long a removed preset's VMs surely run on; for ever when they do so anyway."""
    policy, removal = seen.spec.policy, seen.removal
    if removal is None or removal.held_back or not policy.deleted_on_removal:
        return timedelta.max
    left = removal.left(policy.removal_grace, seen.now)
    return left if left > timedelta(0) else timedelta.max


def _is_over(seen: Observation, plan: Plan, memory: Memory) -> bool:
    """Whether surely nothing of a preset is left, and nothing may still come."""
    return seen.complete and not plan.judged and not memory.intents


def _done(outcomes: Sequence[Outcome], kind: type[Create | Terminate | Repair | Keep]) -> int:
    return sum(1 for o in outcomes if isinstance(o.step, kind) and o.fate is Fate.DONE)


def _is_count_decided(seen: Observation) -> bool:
    """Whether this cycle has taken the declared count, or will never take the approved one."""
    is_led = seen.spec.managed and seen.removal is None and not seen.moves_to
    return seen.complete and is_led
