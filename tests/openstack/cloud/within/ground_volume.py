"""Runs within cinder-volume: a driver that stores nothing, as the fake hypervisor runs nothing.

Volumes are rows of Cinder's database alone, and any image becomes one at once.  Those of a project
cannot be made, or not removed, while there is a file `volumes/ID.create` or `volumes/ID.delete` in
the folder that GROUND_FOLDER names.
"""

import os
from pathlib import Path
from typing import Any

from cinder import exception  # type: ignore[import-not-found]
from cinder.volume import driver  # type: ignore[import-not-found]

BROKEN = Path(os.environ["GROUND_FOLDER"]) / "volumes"


class NothingStored(driver.VolumeDriver):  # type: ignore[misc]
    """Says yes to whatever Nova and users want of a volume."""

    def check_for_setup_error(self) -> None:
        """There is nothing that could be wrong."""

    def _update_volume_stats(self) -> None:
        self._stats = {
            "volume_backend_name": self.configuration.safe_get("volume_backend_name"),
            "vendor_name": "the tests",
            "driver_version": "1",
            "storage_protocol": "fake",
            "total_capacity_gb": "infinite",
            "free_capacity_gb": "infinite",
        }

    def create_volume(self, volume: Any) -> None:
        """Nothing is made, but it may fail."""
        _require_working(volume, "create")

    def delete_volume(self, volume: Any) -> None:
        """Nothing is there, but it may fail."""
        _require_working(volume, "delete")

    def clone_image(self, context: Any, volume: Any, *image: Any) -> tuple[dict[str, Any], bool]:
        """Done: there is no need to copy it."""
        _require_working(volume, "create")
        return {}, True

    def copy_image_to_volume(self, context: Any, volume: Any, *image: Any, **more: Any) -> None:
        """What a rebuild asks for: it is there."""
        _require_working(volume, "create")

    def ensure_export(self, context: Any, volume: Any) -> None:
        """It is reached as it is."""

    def create_export(self, context: Any, volume: Any, connector: Any) -> None:
        """It is reached as it is."""

    def remove_export(self, context: Any, volume: Any) -> None:
        """Nothing was made for it."""

    def initialize_connection(self, volume: Any, connector: Any) -> dict[str, Any]:
        """What Nova's fake hypervisor is told; it does not look."""
        return {"driver_volume_type": "fake", "data": {}}

    def terminate_connection(self, volume: Any, connector: Any, **more: Any) -> None:
        """Nothing was connected."""


def _require_working(volume: Any, deed: str) -> None:
    if (BROKEN / f"{volume.project_id}.{deed}").exists():
        raise exception.VolumeBackendAPIException(data=f"no {deed} today")
