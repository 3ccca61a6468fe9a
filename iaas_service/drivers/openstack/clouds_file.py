"""What is wrong with a clouds.yaml, in words for whoever wrote it: openstacksdk passes over files
that it cannot read, and fails at those of another shape by errors of its own.

`credentials` asks when openstacksdk finds no cloud, or makes nothing of it.  Nothing of a file is
quoted but its keys: its values may be secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml


def fault(paths: Sequence[str], cloud: str) -> str:
    """Why the first file that there is describes no such cloud; "" when it does."""
    there = [path for path in paths if Path(path).exists()]
    if not there:
        return f"there is no file {' or '.join(paths)}, which cloud {cloud!r} would be of"
    said, why = _read(there[0])
    return why or _of_clouds(said, there[0], cloud)


def _read(path: str) -> tuple[object, str]:
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8")), ""
    except OSError as e:
        return None, f"{path} cannot be read: {e.strerror}"
    except UnicodeDecodeError:
        return None, f"{path} is no text in UTF-8"
    except yaml.MarkedYAMLError as e:
        # Not its words: they may quote a secret.
        line = f" at line {e.problem_mark.line + 1}" if e.problem_mark else ""
        return None, f"{path} is no YAML{line}"
    except yaml.YAMLError:
        return None, f"{path} is no YAML"


def _of_clouds(said: object, path: str, cloud: str) -> str:
    if said is None:
        return _unknown(path, cloud, {})
    clouds = said.get("clouds") if isinstance(said, dict) else None
    if not isinstance(clouds, dict):
        return f"{path} has no table `clouds`, with a name before each cloud"
    if cloud not in clouds:
        return _unknown(path, cloud, clouds)
    return _of_cloud(clouds[cloud], path, cloud)


def _of_cloud(said: object, path: str, cloud: str) -> str:
    if not isinstance(said, dict):
        return f"{path}: cloud {cloud!r} must be a table of keys, with `auth` among them"
    if "auth" in said and not isinstance(said["auth"], dict):
        return f"{path}: `auth` of cloud {cloud!r} must be a table of keys, as auth_url"
    if not isinstance((said.get("auth") or {}).get("auth_url", ""), str):
        return f"{path}: auth_url of cloud {cloud!r} must begin with http:// or https://"
    return ""


def _unknown(path: str, cloud: str, clouds: Mapping[Any, Any]) -> str:
    names = ", ".join(sorted(map(str, clouds)))
    return f"{path} has no cloud {cloud!r}; it has: {names or 'none'}"
