"""Why credentials cannot be used, for whoever wrote them: pure, and no secret is in any sentence.

`credentials` asks before anything is sent.
"""

from __future__ import annotations

import re
from typing import Final

from keystoneauth1.identity.base import BaseIdentityPlugin
from openstack.config.cloud_region import CloudRegion

from vmshepherd_kit.errors import Refused

# As a class that is given a key too many says it.
_STRANGE_KEY: Final = re.compile(r"unexpected keyword argument '(\w+)'")
_OF_A_USER: Final = frozenset({"password", "v3password"})


def refusal(why: str) -> Refused:
    """The error."""
    return Refused(f"the credentials of the cloud cannot be used: {why}", reason="CLOUD_UNUSABLE")


def misfit(error: BaseException) -> str:
    """What an error of openstacksdk or of keystoneauth says of them."""
    strange = _STRANGE_KEY.search(str(error)) if isinstance(error, TypeError) else None
    if strange is None:
        return str(error)
    if "application_credential" in strange[1]:
        return "an application credential needs auth_type: v3applicationcredential"
    return f"its auth_type does not know {strange[1]!r} beneath auth"


def require_whole(region: CloudRegion) -> None:
    """Refuse what openstacksdk lets pass, and what no token could be asked for with."""
    auth = region.config.get("auth") or {}
    if not isinstance(region.get_auth(), BaseIdentityPlugin):
        kind = region.config.get("auth_type")
        raise refusal(f"auth_type {kind!r} logs in at no Keystone; take `password`, for one")
    url = str(auth.get("auth_url", ""))
    if not url.startswith(("http://", "https://")):
        raise refusal(f"auth_url must begin with http:// or https://, and it is {url!r}")
    if url.rstrip("/").endswith("/v2.0"):
        raise refusal(f"Keystone v3 is needed, and auth_url names v2.0: {url!r}; write /v3")
    _require_user(region)


def _require_user(region: CloudRegion) -> None:
    """Keystone is not asked for what nobody wrote down, nor does keystoneauth say it by an error
    of its own.
    """
    auth = region.config.get("auth") or {}
    if region.config.get("auth_type") not in _OF_A_USER:
        return
    lacking = [] if auth.get("username") or auth.get("user_id") else ["username (OS_USERNAME)"]
    lacking += [] if auth.get("password") else ["password (OS_PASSWORD)"]
    if lacking:
        raise refusal(f"missing: {' and '.join(lacking)}")
