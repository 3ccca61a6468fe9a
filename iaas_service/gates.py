"""The gates of destruction: each one refuses for a reason of its own, and none can be skipped.

`mutations` asks them in this order: authority (token, reason, evidence), identity (the VM as it is
now bears our marker, is of this preset, and is the one that was meant), protection, budget,
breaker.  No I/O; the time is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from itertools import count

from pydantic import Field, PositiveInt

from vmshepherd_kit.errors import BadRequest, Refused, Violation
from vmshepherd_kit.settings import Duration, Settings

from . import marker
from .budgets import Budget, Place, Window, longest
from .domain import Deed, Mutation, Reason, Vm, VmState
from .tokens import TokenFloors

# To remove what ends by itself, or has ended, costs nothing.
_COSTLESS = frozenset({VmState.TERMINATED, VmState.DELETING})


class Limits(Settings):
    """How much may be destroyed by one iaas_service."""

    terminations: PositiveInt = 20
    """Most VMs within `window`, over all presets and providers; to rebuild one is to destroy its
    disk.
    """
    terminations_per_provider: PositiveInt | None = None
    """Most of them of one provider."""
    terminations_per_zone: PositiveInt | None = None
    """Most of them in one zone of a provider."""
    terminations_per_image: PositiveInt | None = None
    """Most of them made from one image, whatever their providers."""
    reboots: PositiveInt = 20
    """Most reboots within `window`, over all presets and providers."""
    window: Duration = timedelta(minutes=10)
    breaker_count: PositiveInt = 5
    """VMs destroyed as UNHEALTHY within `breaker_window` from which on the breaker may open."""
    breaker_percent: int = Field(default=20, ge=0, le=100)
    """It opens when they are also more than this share of all VMs of the provider."""
    breaker_window: Duration = timedelta(minutes=10)


class Gates:
    """The gates of one process, with the budgets that all its providers share."""

    def __init__(self, limits: Limits, tokens: TokenFloors, *, suite_id: str) -> None:
        self._limits = limits
        self._tokens = tokens
        self._suite_id = suite_id
        self._destruction = _destruction(limits)
        self._reboots = Budget(name="reboots", limit=limits.reboots, share=_all)
        self._destroyed = Window(limits.window)
        self._rebooted = Window(limits.window)
        self._turns = count()
        self._unhealthy = Window(limits.breaker_window)
        # Marked VMs in the last listing of each provider; never listed, the breaker sees none.
        self._sizes: dict[str, int] = {}

    def saw(self, provider: str, marked_vms: int) -> None:
        """Remember how many VMs a listing showed."""
        self._sizes[provider] = marked_vms

    def pass_authority(self, mutation: Mutation) -> None:
        """Token, then reason and evidence."""
        self._tokens.admit(mutation.preset, mutation.fencing_token)
        missing = [
            Violation(field, f"{sentence}: nothing is touched without it")
            for field, sentence, is_there in (
                ("reason", "must be one that this version knows", mutation.reason is not None),
                ("evidence", "is required", bool(mutation.evidence.strip())),
                ("create_time", "is required", mutation.create_time is not None),
            )
            if not is_there
        ]
        if missing:
            sentences = "; ".join(f"{v.field} {v.description}" for v in missing)
            raise BadRequest(sentences, violations=missing)

    def pass_identity(self, mutation: Mutation, vm: Vm) -> None:
        """`vm` was read just now: ours, of this preset, and the one that was meant."""
        found = marker.read(vm.metadata, self._suite_id)
        if found is None:
            raise Refused(
                f"VM {vm.vm_id} does not bear the marker of suite {self._suite_id!r}",
                reason="NOT_OURS",
                vm_id=vm.vm_id,
            )
        if found.preset != mutation.preset:
            raise Refused(
                f"VM {vm.vm_id} is of preset {found.preset!r}, not {mutation.preset!r}",
                reason="NOT_OURS",
                vm_id=vm.vm_id,
                preset=found.preset,
            )
        if vm.create_time != mutation.create_time:
            raise Refused(
                f"VM {vm.vm_id} was made at {vm.create_time.isoformat()}: it is another one",
                reason="NOT_THE_SAME_VM",
                vm_id=vm.vm_id,
            )

    def pass_protection(self, mutation: Mutation, vm: Vm) -> None:
        """Protected VMs are for operators who say `force`."""
        if marker.is_protected(vm) and not mutation.is_forced:
            by = "by the cloud" if vm.locked else f"by its metadata {marker.PROTECTED}"
            raise Refused(
                f"VM {vm.vm_id} is protected {by}; an operator may force it",
                reason="PROTECTED",
                vm_id=vm.vm_id,
            )

    def pass_limits(
        self, provider: str, mutation: Mutation, vm: Vm, now: timedelta, *, deed: Deed
    ) -> None:
        """Budgets, then breaker; a VM that passes is counted, so nothing may come between this and
        the call.
        """
        if deed is Deed.TERMINATE and vm.state in _COSTLESS:
            return
        place = Place(provider=provider, zone=vm.zone, image=vm.image)
        victim = (provider, vm.vm_id, vm.create_time)
        # A VM can be destroyed only once, but rebuilt and rebooted over and over.
        thing = victim if deed is Deed.TERMINATE else (*victim, next(self._turns))
        window = self._rebooted if deed is Deed.REBOOT else self._destroyed
        is_repeat = window.has(thing, now)
        if not is_repeat and not mutation.is_forced:
            self._pass_budgets(window, place, now, deed)
        if mutation.reason is Reason.UNHEALTHY:
            if not (is_repeat and self._unhealthy.has(victim, now)):
                self._pass_breaker(provider, now)
            if deed is not Deed.REBOOT:
                self._unhealthy.add(victim, place, now)
        window.add(thing, place, now)

    def _pass_budgets(self, window: Window, place: Place, now: timedelta, deed: Deed) -> None:
        if deed is Deed.REBOOT:
            refusals = [self._reboots.refusal(window, place, now, deed="rebooted")]
        else:
            refusals = [b.refusal(window, place, now, deed="destroyed") for b in self._destruction]
        if refusal := longest(refusals):
            raise refusal

    def _pass_breaker(self, provider: str, now: timedelta) -> None:
        """An open breaker lets no deed pass; what opens it are VMs that lost their disks.

        A rebuild loses the disk on the word of the same prober as a termination does, so it counts
        as one.  A reboot loses nothing that lasts: were it counted, mild repair would bar the way
        to the repair that helps.  It has a budget, and is refused on the word of a doubted prober
        like the others.
        """
        fallen = len(self._unhealthy.times(now, lambda place: place.provider == provider))
        known = self._sizes.get(provider, 0)
        is_many = fallen >= self._limits.breaker_count
        if is_many and fallen * 100 > self._limits.breaker_percent * known:
            raise Refused(
                f"{fallen} of {known} VMs were destroyed as unhealthy within "
                f"{self._limits.breaker_window}: the cause may lie elsewhere, so no more are",
                reason="BREAKER_OPEN",
                provider=provider,
            )


def _destruction(limits: Limits) -> tuple[Budget, ...]:
    """The budgets of destruction, as far as they are set."""
    budgets = (
        ("terminations", limits.terminations, _all),
        ("terminations_per_provider", limits.terminations_per_provider, _provider),
        ("terminations_per_zone", limits.terminations_per_zone, _zone),
        ("terminations_per_image", limits.terminations_per_image, _image),
    )
    return tuple(
        Budget(name=name, limit=limit, share=share)
        for name, limit, share in budgets
        if limit is not None
    )


def _all(_: Place) -> Mapping[str, str]:
    return {}


def _provider(place: Place) -> Mapping[str, str]:
    return {"provider": place.provider}


def _zone(place: Place) -> Mapping[str, str]:
    return {"zone": place.zone, "provider": place.provider}


def _image(place: Place) -> Mapping[str, str]:
    # A bad image is as bad in another cloud.
    return {"image": place.image}
