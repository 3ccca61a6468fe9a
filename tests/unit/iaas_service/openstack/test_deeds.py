"""What Nova is told of a VM that is made anew: it stays what it was but for its disk."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from iaas_service.domain import Spec, VmId
from iaas_service.drivers.openstack import servers
from iaas_service.drivers.openstack.choose import Thing
from iaas_service.drivers.openstack.deeds import Deeds
from tests.unit.iaas_service.openstack.captured import ACTIVE
from vmshepherd_kit.errors import NotFound

OLD_ID = ACTIVE["image"]["id"]
NEW = Thing(id="5b0a1b56-52f0-4bf5-a4f5-3b3a0f7cb0d1", name="debian-13")
SERVER: dict[str, Any] = {
    **ACTIVE,
    "metadata": {**ACTIVE["metadata"], **servers.imprint(OLD_ID, "debian"), "team": "search"},
}


async def rebuilt(server: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """The order, where an image of any name is the new one."""

    async def image(_: str) -> Thing:
        return NEW

    nobody = cast("Any", None)
    found = cast("Any", SimpleNamespace(image=image))
    deeds = Deeds(nobody, nobody, found, is_forceful=False)
    return dict(await deeds._rebuilt(server, spec, "77aa"))


async def test_what_is_written_upon_it_stays_and_tells_of_the_new_image() -> None:
    order = await rebuilt(SERVER, Spec(image="debian-13"))
    assert order["imageRef"] == NEW.id
    assert order["metadata"]["team"] == "search"
    assert order["metadata"]["vmshepherd_spec"] == "77aa"
    shown = {**SERVER, "image": {"id": NEW.id}, "metadata": order["metadata"]}
    assert servers.vm(shown).image == "debian-13"


async def test_without_an_image_it_is_made_of_its_own() -> None:
    order = await rebuilt(SERVER, Spec())
    assert order["imageRef"] == OLD_ID
    assert servers.vm({**SERVER, "metadata": order["metadata"]}).image == "debian"


async def test_of_an_image_whose_name_is_too_long_nothing_is_written_not_even_the_old_one() -> None:
    # Nova tells no image of what boots from a volume: what is written upon it is believed.
    on_a_volume = {**SERVER, "image": ""}
    order = await rebuilt(on_a_volume, Spec(image="x" * 250))
    assert servers.vm({**on_a_volume, "metadata": order["metadata"]}).image == ""


async def test_user_data_that_there_are_none_of_any_more_are_taken_away() -> None:
    assert (await rebuilt(SERVER, Spec()))["user_data"] is None
    assert (await rebuilt(SERVER, Spec(user_data="#!")))["user_data"] == "IyE="


async def test_nothing_is_done_to_what_can_be_no_id() -> None:
    unasked, nobody = cast("Any", SimpleNamespace(post=None)), cast("Any", None)
    deeds = Deeds(unasked, nobody, nobody, is_forceful=False)
    vm = replace(servers.vm(ACTIVE), vm_id=VmId("../flavors"))
    with pytest.raises(NotFound):
        await deeds.terminate(vm)
    with pytest.raises(NotFound):
        await deeds.console(vm, 3)
