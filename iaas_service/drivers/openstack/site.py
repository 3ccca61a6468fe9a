"""One place of a provider, with all that is done there: where the parts of the driver are put
together.

`cloud` has one made for each place of its options.  Nothing is asked of the network here.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.config_file import Suite

from .api import Api
from .create import Creator
from .credentials import Credentials
from .deeds import Deeds
from .examine import Examiner
from .inventory import Inventory
from .listing import Reader
from .login import Login
from .memory import Memory
from .options import OpenstackOptions
from .places import Place
from .watching import Watcher
from .wire import Wire


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """One place, with all that is done there."""

    place: Place
    api: Api
    inventory: Inventory
    creator: Creator
    reader: Reader
    deeds: Deeds
    watcher: Watcher
    examiner: Examiner

    async def close(self) -> None:
        """End what goes on by itself."""
        self.watcher.end()
        await self.inventory.close()
        await self.api.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class Builder:
    """Makes the sites of one provider, of what they have in common."""

    provider: str
    options: OpenstackOptions
    suite: Suite
    memory: Memory
    clock: Clock
    threads: ThreadPoolExecutor

    def credentials(self, place: Place) -> Credentials:
        """Those of one place."""
        return Credentials(self.options, place, self.suite.base_dir)

    def site(self, place: Place, wire: Wire) -> Site:
        """One place, to be asked over this wire."""
        credentials, clock = self.credentials(place), self.clock
        login = Login(credentials, where=self.provider, clock=clock, threads=self.threads)
        suite_id, options = self.suite.suite_id, self.options
        api = Api(place, provider=self.provider, login=login, wire=wire, clock=clock)
        inventory = Inventory(api, image_owners=options.image_owner_ids, clock=clock)
        creator = Creator(api, inventory, suite_id=suite_id, clock=clock)
        reader = Reader(
            api,
            self.memory,
            suite_id=suite_id,
            page_size=options.page_size,
            horizon=options.horizon,
        )
        return Site(
            place=place,
            api=api,
            inventory=inventory,
            creator=creator,
            reader=reader,
            deeds=Deeds(api, reader, inventory, is_forceful=options.force_delete),
            watcher=Watcher(
                api,
                reader,
                self.memory,
                inventory=inventory,
                clock=clock,
                interval=options.watch_interval,
            ),
            examiner=Examiner(
                api,
                credentials,
                inventory,
                creator,
                suite_id=suite_id,
                clock=clock,
                threads=self.threads,
            ),
        )
