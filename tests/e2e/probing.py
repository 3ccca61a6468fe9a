"""Asking all VMs of a preset over HTTP without a pause, as their users do, and counting who serves.

A look that took long, as on a machine that stood still, is not counted: it saw VMs of different
moments. In a thread of its own beside a test; it changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from tests.e2e import linux
from tests.e2e.suite import Suite

_PAUSE_SECONDS = 0.03
# Less than the time for which a new VM must have been well before an old one goes.
_LONGEST_LOOK_SECONDS = 0.9


class Users:
    """How many VMs answered, look by look."""

    def __init__(self, suite: Suite, preset: str) -> None:
        self.served: list[int] = []
        self._suite = suite
        self._preset = preset
        self._end = threading.Event()

    def look_on(self) -> None:
        """Look until told to end."""
        while not self._end.wait(_PAUSE_SECONDS):
            began = time.monotonic()
            try:
                vms = self._suite.vms(self._preset)
            except grpc.RpcError:
                # The suite is away, not its VMs.
                continue
            served = sum(map(self._answers, (vm.addresses[0] for vm in vms)))
            if time.monotonic() - began < _LONGEST_LOOK_SECONDS:
                self.served.append(served)

    def end(self) -> None:
        """No more looks."""
        self._end.set()

    def _answers(self, address: str) -> bool:
        try:
            return bool(linux.body_of(address, self._suite.ports["vms"], seconds=1))
        except OSError:
            return False


@contextmanager
def using(suite: Suite, preset: str) -> Iterator[Users]:
    """Users of a preset, while the block runs."""
    users = Users(suite, preset)
    thread = threading.Thread(target=users.look_on)
    thread.start()
    try:
        yield users
    finally:
        users.end()
        thread.join()
