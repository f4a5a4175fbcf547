"""Results of proxy runs in a folder: one JSON file a run, named by its spec's digest, whole or not there.

A file carries a checksum of its content, so that one that was torn, edited or put there by something else counts as
missing and the run is done again. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from moeplan import records
from moeplan.errors import UsageError
from moeplan.files import atomic_write, read_json
from moeplan.verification.spec import SPEC_SCHEMA, RunResult, RunSpec

TIMINGS = ("seconds", "tokens_per_second", "mfu")
"""Fields of a result that say how fast it was; all others repeat, bit for bit on one kind of CPU and torch."""
_STALE_SECONDS = 60.0
"""Age at which a temporary file is one that a killed process left."""


def result_path(folder: str | Path, spec: RunSpec) -> Path:
    """Where the result of `spec` is kept."""
    return Path(folder) / f"{spec.digest}.json"


def save(folder: str | Path, result: RunResult) -> Path:
    """Write a result into `folder`, made if it is missing; returns the file. Raises `UsageError` if it cannot be."""
    path = result_path(folder, result.spec)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made a folder: {(error.strerror or str(error)).lower()}") from None
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()
    data = records.to_json(result)
    with atomic_write(path) as file:
        json.dump({"checksum": _checksum(data), **data}, file, indent=1)
        file.write("\n")
    return path


def load(folder: str | Path, spec: RunSpec) -> RunResult | None:
    """The result of `spec`, or None if `folder` has none that is whole and of this very spec."""
    return load_digest(folder, spec.digest)


def load_digest(folder: str | Path, digest: str) -> RunResult | None:
    """The result of the run with this digest, or None as `load`."""
    data = _whole(Path(folder) / f"{digest}.json")
    try:
        result = None if data is None else records.from_json(RunResult, data)
    except UsageError:
        return None
    if result is None:
        return None
    return result if result.schema == SPEC_SCHEMA and result.spec.digest == digest else None


def whole(folder: str | Path) -> int:
    """How many results in `folder` are whole, of whatever runs."""
    return sum(_whole(path) is not None for path in Path(folder).glob("*.json"))


def without_timings(result: RunResult) -> RunResult:
    """The result with its `TIMINGS` set to 0: what two runs of one spec have in common."""
    return replace(result, seconds=0.0, tokens_per_second=0.0, mfu=0.0)


def _whole(path: Path) -> dict[str, Any] | None:
    """The content of a result's file, if its checksum says that it is whole."""
    try:
        data = read_json(path)
    except UsageError:
        return None
    return data if isinstance(data, dict) and data.pop("checksum", None) == _checksum(data) else None


def _checksum(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]
