"""Which services of a cloud are asked, under which version, and how people call them.

Pure.  Catalogues name a service's root or one of its versions, as whoever installed it pleased.
"""

from __future__ import annotations

import re
from typing import Final

SERVICES: Final = {
    "compute": "compute",
    "image": "image",
    "network": "network",
    "volume": "block-storage",
    "placement": "placement",
    "identity": "identity",
}
"""Short names, as the driver uses them, and the types of the service catalogue."""

TITLES: Final = {
    "compute": "Nova",
    "image": "Glance",
    "network": "Neutron",
    "volume": "Cinder",
    "placement": "Placement",
    "identity": "Keystone",
}

_VERSIONS: Final = {
    "compute": "v2.1",
    "image": "v2",
    "network": "v2.0",
    "volume": "v3",
    "identity": "v3",
}
"""Placement has none: its endpoint is asked as it is."""
_VERSION: Final = re.compile(r"/v\d+(\.\d+)?(/|$)")


def versioned(service: str, url: str) -> str:
    """The endpoint with the version that the driver speaks, unless the catalogue names one."""
    bare = url.rstrip("/")
    if service not in _VERSIONS or _VERSION.search(bare.partition("://")[2]):
        return bare
    return f"{bare}/{_VERSIONS[service]}"
