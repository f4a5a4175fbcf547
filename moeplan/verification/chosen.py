"""What was chosen for a request, kept in a study's folder: forecasts vary from call to call, the runs must not."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.files import atomic_write


def key_of(asked: Any) -> str:
    """A name for a request: SHA-256 of its JSON, first 16 hex digits."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def read_chosen(folder: Path, key: str) -> Any:
    """What `keep_chosen` wrote; None if there is nothing that can be read."""
    try:
        return json.loads(_path(folder, key).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def keep_chosen(folder: Path, key: str, chosen: Any) -> None:
    """Write a choice as JSON; raises `UsageError` for a folder that cannot be written."""
    path = _path(folder, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be written: {(error.strerror or str(error)).lower()}") from None
    with atomic_write(path) as file:
        file.write(json.dumps(chosen, indent=1) + "\n")


def _path(folder: Path, key: str) -> Path:
    return folder / "ladders" / f"{key}.json"
