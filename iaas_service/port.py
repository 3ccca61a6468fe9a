"""The port: what iaas_service asks of a driver of a cloud.

Drivers are found in the entry-point group `vmshepherd.drivers.iaas`; `testing.py` is the suite that
each must pass.  A driver translates and classifies; gates, tokens, budgets, paging and concurrency
are the service's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Final, Protocol, runtime_checkable

from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import ShepherdError
from vmshepherd_kit.settings import Settings

from .domain import Catalog, Change, Check, Listing, Order, Spec, Vm, VmId

GROUP: Final = "iaas"
"""Short for the entry-point group `vmshepherd.drivers.iaas`."""


class Trait(StrEnum):
    """What a driver can do beyond the least."""

    IDEMPOTENT_CREATE = "idempotent"
    """A create repeated with the same request id makes no second VM."""
    EVENTS = "eventful"
    """`watch` tells of changes."""
    REBOOT = "able to reboot"
    REBUILD = "able to rebuild"
    CONSOLE = "able to show consoles"
    """It is `Consoles`, too."""


class Changes(Protocol):
    """What happened since the subscription, or since it was last asked."""

    async def next(self) -> Sequence[Change]:
        """Wait for changes and take them, the latest of each VM; cancelled, nothing is lost."""
        ...


class Cloud(Protocol):
    """One cloud, region or project, under the credentials of one provider.

    Errors are those of the kit.  Of a mutation, Unavailable promises that nothing was done; whoever
    cannot promise it raises OutcomeUnknown.  Calls may come side by side, and any may be cancelled
    at any time.
    """

    @property
    def traits(self) -> frozenset[Trait]:
        """What it can do."""
        ...

    @property
    def horizon(self) -> timedelta:
        """After this time a create of unknown outcome that is not seen was not done."""
        ...

    async def list(self) -> Listing:
        """At least all VMs of the suite, and whether the reading is whole.  Raises Unavailable."""
        ...

    async def get(self, vm_ids: Sequence[VmId]) -> Sequence[Vm | ShepherdError]:
        """In order: each VM as it is now, NotFound (proof that it is gone) or Unavailable."""
        ...

    async def create(self, order: Order) -> Vm:
        """Make a VM that bears `marker.write(order.marker)` from its first moment.

        With IDEMPOTENT_CREATE a repeat answers the VM that was made, TERMINATED if it is gone; for
        another VM than the first time AlreadyExists / REQUEST_ID_REUSED.
        """
        ...

    async def terminate(self, vm: Vm) -> bool:
        """Destroy the VM; False when it was gone already."""
        ...

    async def reboot(self, vm: Vm) -> Vm:
        """Restart it; it keeps its disks and addresses.  Raises NotFound."""
        ...

    async def rebuild(self, vm: Vm, spec: Spec, *, spec_hash: str) -> Vm:
        """Make it anew from image and user data of a spec, whose other fields do not matter.

        It keeps its id, addresses, creation time and metadata, but for what `marker.rewritten`
        makes of them; "" for the image means the one it has.  Raises NotFound.
        """
        ...

    async def catalog(self) -> Catalog:
        """What can be ordered, and the quotas."""
        ...

    def watch(self) -> AbstractContextManager[Changes]:
        """Subscribe: what changes after entering is told."""
        ...


@runtime_checkable
class Consoles(Protocol):
    """What a cloud with CONSOLE offers besides: not a part of `Cloud`, as most have none."""

    async def console(self, vm: Vm, lines: int) -> str:
        """The last lines that the VM said, as it said them, oldest first; more do no harm.

        Raises NotFound, Unavailable, or Unsupported where the trait is taken away.
        """
        ...


@runtime_checkable
class Checks(Protocol):
    """What a cloud may offer besides: to say what is wrong before the first create."""

    async def check(self) -> Sequence[Check]:
        """Credentials, endpoints, quotas …: what is wrong with the cloud is a finding, and raises
        nothing.
        """
        ...

    async def check_spec(self, preset: str, spec: Spec) -> str:
        """What the names of a spec stand for.  Raises what `create` would; makes nothing."""
        ...


class CloudDriver(Protocol):
    """The class that an entry point names; opened and closed by `async with`."""

    Options: ClassVar[type[Settings]]

    def __call__(
        self, options: Settings, *, provider: str, suite: Suite, clock: Clock, chance: Chance
    ) -> AbstractAsyncContextManager[Cloud]:
        """The cloud of one provider, not open yet."""
        ...
