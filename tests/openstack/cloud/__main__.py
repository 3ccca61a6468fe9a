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
    return _do(Place.of(Path(folder).absolute()), words)


def _do(place: Place, words: list[str]) -> str | int:
    match words:
        case ["up"]:
            return _told(partial(program.up, place, _say))
        case ["keep"]:
            return _told(partial(program.keep, place, _say))
        case ["down"]:
            return _told(partial(program.down, place))
        case ["down", "--keep-data"]:
            return _told(partial(program.down, place, keep_data=True))
    return "usage: python3 -m tests.openstack.cloud up | keep | down [--keep-data]"


def _told(do: partial[None]) -> str | int:
    try:
        do()
    except NotReady as reason:
        return str(reason)
    return 0


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
