"""Finding a driver by its port and its name, among the entry points of what is installed.

Composition roots call `load`, then the driver's own `open`; nobody else names a concrete driver.
Every refusal is a sentence that an operator can act upon: what is installed, who declares it
twice, which extra brings it.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final, Protocol

from vmshepherd_kit.errors import NotFound, Refused

if TYPE_CHECKING:
    from collections.abc import Collection

_PREFIX: Final = "vmshepherd.drivers."


class HasTraits(Protocol):
    """What a driver declares about itself."""

    @property
    def traits(self) -> frozenset[Any]:
        """The guarantees that it gives."""
        ...


def load(group: str, name: str) -> type[Any]:
    """The class of the driver `name` in a group, which may be written short (`iaas`) or in full.

    Raises NotFound (it lists what is installed) or Refused (declared twice, or its extra is not
    installed).
    """
    found = {entry.value: entry for entry in _entries(group) if entry.name == name}
    if not found:
        there = ", ".join(installed(group)) or "none"
        raise NotFound(
            f"there is no {_short(group)} driver {name!r}; installed: {there}",
            reason="DRIVER_NOT_FOUND",
            driver=name,
        )
    if len(found) > 1:
        declarers = " and ".join(sorted(f"{_package(e)} ({e.value})" for e in found.values()))
        raise Refused(
            f"the {_short(group)} driver {name!r} is declared twice: by {declarers}; uninstall one",
            reason="DRIVER_DECLARED_TWICE",
            driver=name,
        )
    return _imported(next(iter(found.values())))


def installed(group: str) -> list[str]:
    """The names of the drivers of a group that are installed, sorted."""
    return sorted({entry.name for entry in _entries(group)})


def demand(driver: HasTraits, wanted: Collection[Any], *, why: str = "") -> None:
    """Refuse a driver that lacks a trait that its user cannot do without."""
    missing = sorted(str(getattr(trait, "value", trait)) for trait in set(wanted) - driver.traits)
    if missing:
        because = f" ({why})" if why else ""
        raise Refused(
            f"the driver {type(driver).__name__} cannot be used here{because}: it is not "
            + ", not ".join(missing),
            reason="DRIVER_UNFIT",
            missing=",".join(missing),
        )


def _imported(entry: EntryPoint) -> type[Any]:
    try:
        driver = entry.load()
    except ImportError as e:
        if _is_part_of(e.name, entry.module):
            raise  # the driver itself is broken, no extra would mend it
        raise Refused(
            f"the driver {entry.name!r} needs the package {e.name or e!s}, which is not installed: "
            f"pip install vmshepherd[{entry.name}]",
            reason="DRIVER_EXTRA_MISSING",
            driver=entry.name,
        ) from e
    if not isinstance(driver, type):
        raise Refused(f"{entry.value} is no class", reason="DRIVER_BROKEN", driver=entry.name)
    return driver


def _is_part_of(name: str | None, module: str) -> bool:
    return name is not None and name.partition(".")[0] == module.partition(".")[0]


def _entries(group: str) -> Collection[EntryPoint]:
    return entry_points(group=_PREFIX + _short(group))


def _short(group: str) -> str:
    return group.removeprefix(_PREFIX)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown package"
