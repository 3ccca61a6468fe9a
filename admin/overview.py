"""What `vmshepherd info` asks and prints."""

from __future__ import annotations

from admin import client, printing, tables
from admin.options import Asking
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd_kit import dial
from vmshepherd_kit.clock import SystemClock


def info(asking: Asking) -> None:
    """The suite: replicas, services, configuration, and who holds which preset."""
    answer = client.answer(asking, lambda stub: dial.ask(stub.GetInfo, api.GetInfoRequest()))
    if asking.is_json:
        return printing.print_json(answer)
    printing.print_facts(tables.info_facts(answer, SystemClock().wall()))
    printing.print_heading("REPLICAS")
    printing.print_table(tables.replicas(answer))
    printing.print_heading("SERVICES")
    printing.print_table(tables.backends(answer))
    printing.print_heading("PRESETS")
    return printing.print_table(tables.owners(answer))
