"""The command line: `up`, `down`, `keep` for the cloud whose folder VMSHEPHERD_OPENSTACK names."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from . import program
from .daemons import NotReady
from .place import FOLDER_VARIABLE, Place


def main(words: list[str]) -> str | int:
    """What it ends with: a complaint, or 0."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return f"set {FOLDER_VARIABLE} to the folder that the cloud shall live in"
    if lacking := program.missing():
        return f"not installed: apt-get install {' '.join(lacking)}"
    place = Place.of(Path(folder).absolute())
    match words:
        case ["up"]:
            return _told(partial(program.up, place, _say))
        case ["keep"]:
            return _told(partial(program.keep, place, _say))
        case ["down"]:
            program.down(place)
            return 0
        case ["down", "--keep-data"]:
            program.down(place, keep_data=True)
            return 0
    return "usage: python3 -m tests.openstack.cloud up | keep | down [--keep-data]"


def _told(do: partial[None]) -> str | int:
    try:
        do()
    except NotReady as reason:
        return str(reason)
    return 0


def _say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
