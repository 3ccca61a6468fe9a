"""A store in a ZooKeeper ensemble: durable, and shared by several runtime_services.

`store` fulfils the port with `registry` (sessions), `locks`, `states` and `journal`; `lives` judges
when a session is over; `connection` runs their steps, `client` bridges kazoo's threads, `paths` and
`records` say what is stored where, `failures` what ZooKeeper's errors mean to an operator.
"""

from .options import ZookeeperOptions
from .store import ZookeeperRuntime

__all__ = ["ZookeeperOptions", "ZookeeperRuntime"]
