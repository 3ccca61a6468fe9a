"""People at the admin API, and what they write into presets: operators, honest and clumsy.

They call through the same network as everybody else, and shrug when it fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from iaas_service.domain import VmId
from vmshepherd.iaas.v1 import iaas_service_pb2 as iaas
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import IaasServiceStub
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd_kit import dial
from vmshepherd_kit.errors import ShepherdError
from vmshepherd_kit.stamps import to_timestamp

from .clocks import UPTIME
from .cloud import Body
from .loop import Host
from .network import Channel
from .suite import World

IMAGE = "good-1"
# How often somebody tries who wants it done, and how long after each failure.
_PATIENCE, _PAUSE = 60, 3.0


class People:
    """One operator with a terminal, and the files of all presets."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._host = Host(world.kernel, "person", booted=-UPTIME)
        self._keys: dict[str, dict[str, Any]] = {}
        self._guarded: list[tuple[str, str]] = []

    # Presets

    def declare(self, preset: str, count: int, **keys: Any) -> None:
        """Write a preset for the first time."""
        self._keys[preset] = {
            "count": count,
            "image": IMAGE,
            "flavor": "small",
            "healthcheck": {"driver": "sim"},
            **keys,
        }
        self._world.ledger.declare(preset, count)
        self._world.ledger.policies[preset] = keys.get("policy", {})
        self.save(preset)

    def edit(self, preset: str, *, is_held_back: bool = False, **keys: Any) -> None:
        """Change some keys; a count that the spec guard holds back is not what is asked for."""
        self._keys[preset] |= keys
        if "count" in keys and not is_held_back:
            self._world.ledger.declare(preset, int(keys["count"]))
        self.save(preset)

    def end_lifetimes(self) -> None:
        """A group whose VMs may not grow old never rests: end that."""
        for preset, policy in self._world.ledger.policies.items():
            if policy.pop("max_lifetime", None):
                self.edit(preset, policy=policy)

    def keys(self, preset: str) -> Mapping[str, Any]:
        """What the file says."""
        return self._keys[preset]

    def save(self, preset: str) -> None:
        """Put the file as it should be."""
        self._world.ledger.restored(preset)
        self._world.removed.discard(preset)
        self._world.repository.write(preset, self._keys[preset])

    def break_file(self, preset: str) -> None:
        """Save a file that is none."""
        self._world.repository.put(preset, "count: [1\n: oops")

    def remove(self, preset: str) -> None:
        """Take the file away."""
        self._world.ledger.removed(preset)
        self._world.removed.add(preset)
        self._world.repository.remove(preset)

    # The admin API

    def ask(self, replica: str, method: str, **fields: Any) -> None:
        """Call one replica, and take whatever comes."""
        self._ask(replica, method, 1, fields)

    def insist(self, replica: str, method: str, **fields: Any) -> None:
        """The same, again and again until it is done."""
        self._ask(replica, method, _PATIENCE, fields)

    def protect(self, replica: str, body: Body) -> None:
        """Protect a VM; it is known to be protected once the suite has said so."""
        wish = api.ProtectVmRequest(
            preset=body.preset, vm_id=body.vm_id, protected=True, actor="ann", reason="mine"
        )
        self._guarded.append((body.preset, body.vm_id))

        def done() -> None:
            body.guarded_at = self._world.kernel.now

        self._go(OrchestratorServiceStub(self._channel(replica)).ProtectVm, wish, done=done)

    def unprotect(self, replica: str, preset: str, vm_id: str) -> None:
        """End the protection."""
        self._world.truth.bodies[VmId(vm_id)].guarded_at = None
        self.insist(replica, "ProtectVm", preset=preset, vm_id=vm_id, protected=False, actor="ann")

    def let_go(self, replica: str) -> None:
        """End every pause and every protection."""
        for preset in self._keys:
            self.insist(replica, "ResumePreset", preset=preset, actor="ann")
        for preset, vm_id in self._guarded:
            self.unprotect(replica, preset, vm_id)

    def _ask(self, replica: str, method: str, times: int, fields: dict[str, Any]) -> None:
        request = getattr(api, f"{method}Request")(**fields)
        stub = OrchestratorServiceStub(self._channel(replica))
        self._go(getattr(stub, method), request, times=times)

    def terminate_at_iaas(self, body: Body, preset: str, token: int) -> None:
        """Somebody calls iaas_service himself, with a VM that is not the preset's."""
        created = self._world.truth.show(body).create_time
        mutation = iaas.VmMutation(
            vm_id=body.vm_id,
            preset=preset,
            fencing_token=token,
            create_time=to_timestamp(created),
            reason=iaas.MUTATION_REASON_SURPLUS,
            evidence="somebody believes so",
        )
        request = iaas.TerminateVmsRequest(provider="sim", terminations=[mutation])
        self._go(IaasServiceStub(self._channel("iaas")).TerminateVms, request)

    def _channel(self, address: str) -> Any:
        return Channel(self._world.network, self._host, address)

    def _go(
        self,
        method: Any,
        request: Any,
        *,
        times: int = 1,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        async def go() -> None:
            for _ in range(times):
                with suppress(ShepherdError):
                    await dial.ask(method, request)
                    done()
                    return
                await asyncio.sleep(_PAUSE)

        self._host.call_soon(lambda: self._host.create_task(go()))
