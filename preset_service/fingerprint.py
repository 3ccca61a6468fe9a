"""The hash that VMs bear, by which the suite sees which of them were made of another spec.

The form is fixed for ever: SHA-256, in hex, over the JSON (UTF-8, keys sorted, no spaces) of the
fields that shape a VM: image, flavor, user_data, key_name, network, meta_tags, iaas_options and
provider.  Fields that are empty are left out, so that a field added later changes no hash of
presets that do not use it; security groups are a set, so they are sorted; whole numbers are
written without a fraction.  Count, check, policy and links are no part of it: they never roll VMs.
Nor are fallbacks and the zones of a spread: a VM that is where there was room is as declared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from preset_service.domain import Network, PresetSpec


def spec_hash(spec: PresetSpec) -> str:
    """The hash of what a VM of this spec is made of."""
    shape = {
        "flavor": spec.flavor,
        "iaas_options": spec.iaas_options,
        "image": spec.image,
        "key_name": spec.key_name,
        "meta_tags": spec.meta_tags,
        "network": _network(spec.network),
        "provider": spec.provider,
        "user_data": spec.user_data,
    }
    text = json.dumps(
        _without_empty(_canonical(shape)), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _network(network: Network) -> dict[str, Any]:
    attachments = [
        _without_empty({"network": each.network, "subnet": each.subnet})
        for each in network.attachments
    ]
    return _without_empty(
        {
            "attachments": attachments,
            "availability_zone": network.availability_zone,
            "security_groups": sorted(set(network.security_groups)),
        }
    )


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in ("", [], {})}


def _canonical(value: Any) -> Any:
    """Numbers that came over the wire are all floating: 2.0 is the same as 2."""
    if isinstance(value, Mapping):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
