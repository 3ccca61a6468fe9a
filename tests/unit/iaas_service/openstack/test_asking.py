from __future__ import annotations

import pytest

from iaas_service.drivers.openstack.asking import Request, following, headers, numbers


def test_the_next_page_is_asked_for_as_the_service_says_wherever_it_thinks_it_lives() -> None:
    link = {"rel": "next", "href": "http://inside/v2.1/servers/detail?limit=2&marker=0f1e"}
    of_nova = {"servers": [{}], "servers_links": [{"rel": "previous", "href": "x?y=z"}, link]}
    assert following(of_nova, "servers") == {"limit": "2", "marker": "0f1e"}
    of_glance = {"images": [{}], "next": "/v2/images?marker=0f1e"}
    assert following(of_glance, "images") == {"marker": "0f1e"}


def test_the_last_page_has_no_next_one() -> None:
    assert following({"servers": [{}]}, "servers") == {}


def test_an_old_nova_understands_the_microversion_too() -> None:
    request = Request(method="GET", service="compute", path="/", params=None, microversion="2.1")
    told = headers("t0ken", request)
    assert told["OpenStack-API-Version"] == "compute 2.1"
    assert told["X-OpenStack-Nova-API-Version"] == "2.1"


@pytest.mark.parametrize(("text", "pair"), [("2.93", (2, 93)), ("", (2, 1)), ("soon", (2, 1))])
def test_a_version_is_compared_by_its_numbers(text: str, pair: tuple[int, int]) -> None:
    assert numbers(text) == pair
