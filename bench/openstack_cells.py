"""`cells`: the database of a cell cannot be reached for a while, again and again.

Nova goes on without that cell: its servers are listed without names and metadata, or not at all.
Nothing may be made and nothing destroyed meanwhile, whatever else befalls the other cell: in every
second round a person deletes a server there. The presets say why nothing is done; afterwards all is
as declared, and nothing that was only out of sight has been replaced.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

import grpc

from bench.openstack_stage import Stage
from bench.openstack_suite import Shepherd
from bench.replicas_figures import spread
from tests.e2e.waiting import until

PRESETS: Final = ("web", "api", "db", "queue")
_DOWN: Final = "cell2"
_WELL: Final = "cell1"
_MAKING: Final = 400.0
_PATIENCE: Final = 180.0
# Until everybody has looked once more: the interval of a settled preset, and a cycle.
_SAYING: Final = 20.0
# The same at the most, on a machine that others use as well.
_SLOW: Final = 90.0
_LOOK: Final = 0.5


class Cells:
    """One run."""

    def __init__(self, stage: Stage, vms: int) -> None:
        self._stage = stage
        self._suite = Shepherd(stage)
        self._vms = vms
        self.wrong: list[str] = []
        self.said: Counter[str] = Counter()
        self.healed: list[float] = []
        self.lost = 0

    def run(self, *, times: int, seconds: float) -> dict[str, Any]:
        """All rounds; the figures."""
        try:
            self._make()
            for number in range(times):
                self._round(seconds, hurt=number % 2 == 1)
        finally:
            self._suite.close()
        return {
            "times": times,
            "seconds_each": seconds,
            "servers": len(PRESETS) * self._vms,
            "deleted_behind_the_back_meanwhile": self.lost,
            "conditions_meanwhile": dict(self.said),
            "settled_after_seconds": spread(self.healed),
        }

    def _make(self) -> None:
        """Of every preset a half in each cell: chance might leave one of them empty."""
        with self._stage.cloud.only_in(_DOWN):
            self._want(self._vms // 2)
            self._suite.up()
            self._suite.settle(_MAKING)
        with self._stage.cloud.only_in(_WELL):
            self._want(self._vms)
            self._suite.settle_approved(_MAKING)
        self._require_both_cells()

    def _want(self, vms: int) -> None:
        for name in PRESETS:
            self._suite.want(name, vms)

    def _round(self, seconds: float, *, hurt: bool) -> None:
        before = {each.server_id for each in self._stage.servers()}
        with self._stage.cloud.cell_down(_DOWN):
            begun = time.monotonic()
            gone = {self._delete_elsewhere()} if hurt else set[str]()
            self._stay(begun + seconds)
            self._judge(begun, silent=self._silent())
        self.healed.append(self._suite.settle(_PATIENCE))
        after = {each.server_id for each in self._stage.servers()}
        self.wrong += [f"{vm} was only out of sight and is gone" for vm in before - after - gone]
        if len(after - before) != len(gone):
            self.wrong.append(f"{len(after - before)} servers were made, {len(gone)} were missing")

    def _stay(self, end: float) -> None:
        """Until then; what the presets say by then is collected."""
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _SAYING))
            with suppress(grpc.RpcError):
                self._hear()

    def _silent(self) -> list[str]:
        """Presets that do not say why nothing is done, with all the time to look once more."""
        with suppress(AssertionError):
            until(lambda: not self._hear(), "all say why", seconds=_SLOW, pause=_LOOK)
        return self._hear()

    def _hear(self) -> list[str]:
        """Collect why nothing is done; presets that do not say."""
        told = {name: self._suite.conditions(name) for name in PRESETS}
        for conditions in told.values():
            self.said.update(conditions.keys())
        return [name for name, conditions in told.items() if not conditions]

    def _judge(self, begun: float, *, silent: Iterable[str]) -> None:
        """What was done while a part of the servers was out of sight."""
        for each in self._stage.ledger.since(begun):
            if each.is_create or each.is_end:
                self.wrong.append(f"{each.kind} {each.at - begun:.1f} s after the cell went down")
        self.wrong += [f"{name} does not say why nothing is done" for name in silent]

    def _delete_elsewhere(self) -> str:
        """A person deletes a server of a cell that is well."""
        cloud, project = self._stage.cloud, self._stage.project
        victim = next(vm for vm in cloud.servers(project) if cloud.cell_of(vm) != _DOWN)
        project.delete(victim)
        self.lost += 1
        until(lambda: victim not in cloud.servers(project), "it is gone", seconds=_PATIENCE)
        return victim

    def _require_both_cells(self) -> None:
        cloud = self._stage.cloud
        found = Counter(cloud.cell_of(vm) for vm in cloud.servers(self._stage.project))
        away = self._vms // 2 * len(PRESETS)
        if found != {_DOWN: away, _WELL: self._vms * len(PRESETS) - away}:
            raise AssertionError(f"the servers are not half in each cell: {dict(found)}")


def show(stage: Stage, *, times: int, seconds: float, vms: int) -> tuple[dict[str, Any], list[str]]:
    """The figures, and what was wrong."""
    cells = Cells(stage, vms)
    found = cells.run(times=times, seconds=seconds)
    return found, cells.wrong
