"""A preset's keys laid over the configuration's defaults, as values of the domain.

Pure.  Options are merged recursively, but only beneath the same driver or provider: another
driver's options would mean nothing.  Everything else is merged key by key, whatever the driver.
Names of VmShepherd 1.6 become those of today.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from preset_service.domain import Attachment, HealthCheck, Network, Policy
from preset_service.schema import OFF, HealthKeys, IaasKeys, NetworkKeys, PolicyKeys

_HEALTH_DRIVERS: Final = {"HttpHealthcheck": "http", "DummyHealthcheck": "dummy"}
_PROVIDERS: Final = {"DummyIaasDriver": "dummy", "OpenStackDriver": "openstack"}


def health(own: HealthKeys, defaults: HealthKeys) -> HealthCheck | None:
    """How VMs are judged; None when neither names a driver."""
    mine, default = _health_driver(own), _health_driver(defaults)
    driver = mine or default
    if driver is None:
        return None
    base = defaults.driver_options() if default in {driver, None} else {}
    mine_min, mine_observe = _patience(own)
    base_min, base_observe = _patience(defaults)
    observe = mine_observe if mine_observe is not None else base_observe
    return HealthCheck(
        driver=driver,
        options=_merged(base, own.driver_options()),
        fall=own.fall if own.fall is not None else defaults.fall,
        rise=own.rise if own.rise is not None else defaults.rise,
        min_failing_time=mine_min if mine_min is not None else base_min,
        observe_only=bool(observe),
    )


def provider(own: IaasKeys, defaults: IaasKeys) -> tuple[str, dict[str, Any]]:
    """The provider's name ("" for the orchestrator's default), and the options for these VMs."""
    mine, default = _provider(own), _provider(defaults)
    name = mine or default
    base = defaults.driver_options() if default == name else {}
    return name, _merged(base, own.driver_options())


def policy(own: PolicyKeys, defaults: PolicyKeys) -> Policy:
    """The limits, each from the preset or else from the defaults."""
    return Policy(**{**_written(defaults), **_written(own)})


def network(keys: NetworkKeys) -> Network:
    """Networks first, then subnets, each in its order; one zone is no spread."""
    zones = keys.availability_zone
    return Network(
        security_groups=keys.security_groups,
        availability_zone=zones[0] if len(zones) == 1 else "",
        availability_zones=zones if len(zones) > 1 else (),
        attachments=tuple(
            Attachment(network=each.network, subnet=each.subnet)
            for each in (*keys.networks, *keys.subnets)
        ),
    )


def preferred(choices: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The first choice ("" for none), and those to fall back on."""
    first, *others = choices or ("",)
    return first, tuple(others)


def _health_driver(keys: HealthKeys) -> str | None:
    return None if keys.driver is None else _HEALTH_DRIVERS.get(keys.driver, keys.driver)


def _provider(keys: IaasKeys) -> str:
    if keys.driver is not None:
        return _PROVIDERS.get(keys.driver, keys.driver.lower())
    return keys.provider or ""


def _patience(keys: HealthKeys) -> tuple[timedelta | None, bool | None]:
    """The least failing time and whether to observe only, in today's or in the former keys."""
    former = keys.terminate_health_failed_delay
    if former is None:
        return keys.min_failing_time, keys.observe_only
    return (None, True) if former == OFF else (former, False)


def _written(keys: PolicyKeys) -> dict[str, Any]:
    return {
        name: value
        for name in PolicyKeys.model_fields
        if (value := getattr(keys, name)) is not None
    }


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        lower = result.get(key)
        is_nested = isinstance(lower, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(lower, value) if is_nested else value  # type: ignore[arg-type]
    return result
