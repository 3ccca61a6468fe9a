"""VMs of OpenStack: Nova's servers in one or more projects and regions of one cloud.

`cloud` fulfils the port; `api` is the way to the cloud for all the rest.  Needs the extra
`openstack`.
"""

from .cloud import OpenstackCloud
from .options import OpenstackOptions

__all__ = ["OpenstackCloud", "OpenstackOptions"]
