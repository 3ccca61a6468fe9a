"""Runs within neutron-server: a mechanism driver that binds every port at once and calls it ACTIVE.

There is no agent on any host, and the fake hypervisor plugs nothing.
"""

from neutron_lib import constants  # type: ignore[import-not-found]
from neutron_lib.api.definitions import portbindings  # type: ignore[import-not-found]
from neutron_lib.plugins.ml2 import api  # type: ignore[import-not-found]


class AlwaysBind(api.MechanismDriver):  # type: ignore[misc]
    """Any port, on any host."""

    def initialize(self) -> None:
        """There is nothing to prepare."""

    @property
    def connectivity(self) -> str:
        """What is claimed of the ports."""
        return str(portbindings.CONNECTIVITY_L2)

    def bind_port(self, context: api.PortContext) -> None:
        """Bind it to the network's first segment."""
        segment = context.segments_to_bind[0]
        details = {portbindings.CAP_PORT_FILTER: True}
        active = constants.PORT_STATUS_ACTIVE
        context.set_binding(segment[api.ID], portbindings.VIF_TYPE_OVS, details, status=active)
