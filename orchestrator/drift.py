"""Pure: which VMs are outdated: made of another spec than the declared one, or changed since.

The hash in the marker tells of image, flavor, user data, key, network and metadata. What the cloud
reports is compared with what it first reported of the same VM, never with the preset: clouds give
things other names than people do.
"""

from __future__ import annotations

from dataclasses import replace

from .model import Judged, Replace, Spec, Vm, VmMemory


def is_outdated(vm: Vm, memory: VmMemory, spec: Spec) -> bool:
    """Whether a VM is not what a new one would be."""
    if spec.spec_hash and vm.spec_hash != spec.spec_hash:
        return True
    return _differs(memory.first_image, vm.image) or _differs(memory.first_flavor, vm.flavor)


def matters(judged: Judged, spec: Spec) -> bool:
    """Whether its being outdated makes a difference, by the preset's own words."""
    return judged.is_outdated and spec.policy.replace is not Replace.NEVER


def first_report(memory: VmMemory, vm: Vm) -> VmMemory:
    """The memory with what the cloud said of the VM at first."""
    image, flavor = memory.first_image or vm.image, memory.first_flavor or vm.flavor
    if (image, flavor) == (memory.first_image, memory.first_flavor):
        return memory
    return replace(memory, first_image=image, first_flavor=flavor)


def evidence(judged: Judged, spec: Spec) -> str:
    """What shows that a VM is outdated."""
    vm, memory = judged.vm, judged.memory
    if spec.spec_hash and vm.spec_hash != spec.spec_hash:
        return f"made of spec {vm.spec_hash[:8] or 'unknown'}, declared is {spec.spec_hash[:8]}"
    return (
        f"was made with image {memory.first_image!r} and flavor {memory.first_flavor!r}, "
        f"now has {vm.image!r} and {vm.flavor!r}"
    )


def _differs(first: str, now: str) -> bool:
    return bool(first and now) and first != now
