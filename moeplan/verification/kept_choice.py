"""The ladder chosen for a request, kept in a study's folder: forecasts vary from call to call, the runs must not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeplan import records
from moeplan.errors import UsageError
from moeplan.files import atomic_write
from moeplan.verification.verification import Outline


def key_of(asked: Any) -> str:
    """A name for a request: SHA-256 of its JSON, first 16 hex digits."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class KeptChoice:
    """A chosen ladder, with the number of workers it was chosen for."""

    base: float
    """Base compute of the ladder [FLOPs]. JSON keeps every digit of it: the runs' digests hang on it."""
    workers: int
    """Workers that were asked for; 0 for the machine's own number."""
    outline: Outline
    """The runs as they were announced."""

    @classmethod
    def read(cls, folder: Path, key: str) -> KeptChoice | None:
        """Read what `write` wrote; None if there is nothing, or something torn: then it is chosen again."""
        try:
            kept = json.loads(_path(folder, key).read_text(encoding="utf-8"))
            return cls(float(kept["base"]), int(kept["workers"]), records.from_json(Outline, kept["outline"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError, UsageError):
            return None

    def write(self, folder: Path, key: str) -> None:
        """Keep it as JSON; raises `UsageError` for a folder that cannot be written."""
        path = _path(folder, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be written: {(error.strerror or str(error)).lower()}") from None
        with atomic_write(path) as file:
            kept = {"base": self.base, "workers": self.workers, "outline": self.outline.to_json()}
            file.write(json.dumps(kept, indent=1) + "\n")


def _path(folder: Path, key: str) -> Path:
    return folder / "ladders" / f"{key}.json"
