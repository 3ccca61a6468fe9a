"""A cloud in memory: for tests, benchmarks and first steps; its VMs are rows in a table.

`cloud` is the driver, `world` holds the VMs and does what operators and bad luck do to them,
`options` are its settings.  Same seed, same clock: same story.
"""

from .cloud import SimulatedCloud
from .options import SimulatedOptions
from .world import SimulatedWorld

__all__ = ["SimulatedCloud", "SimulatedOptions", "SimulatedWorld"]
