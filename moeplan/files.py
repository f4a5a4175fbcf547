"""Writing files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from moeplan.errors import UsageError


def source_file(path: str | Path) -> Path:
    """The path of a file to read; raises `UsageError` for an empty name, which would be the folder one is in."""
    if not str(path).strip():
        raise UsageError(f"input {str(path)!r} is no file name; write it like plan.json")
    return Path(path)


def check_writable(path: str | Path, *, keep: Iterable[str | Path] = ()) -> None:
    """Raise `UsageError` unless a file can be written there, none of `keep`; to be called before hours of work."""
    try:
        target = _target(path)
        if any(target == Path(os.path.realpath(each)) for each in keep):
            raise UsageError(f"{path}: cannot be written: it is read here; give another file name")
        if not target.exists():
            trial = _temporary(target)
            trial.touch(exist_ok=False)
            trial.unlink()
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[TextIO]:
    """Open a file under a temporary name beside `path` and rename it at the end; on any error nothing is left.

    A device or a pipe is written directly. Raises `UsageError` naming the path.
    """
    try:
        target = _target(path)
        special = target.exists() and not target.is_file()
        name = target if special else _temporary(target)
        file = name.open("w" if special else "x", encoding="utf-8", newline="\n")
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None
    try:
        with file:
            yield file
        if not special:
            os.replace(name, target)
    except BaseException as error:
        if not special:
            with suppress(OSError):
                name.unlink()
        if isinstance(error, OSError) and error.filename is None:  # the write itself: a full disk
            raise _cannot_write(path, error) from None
        raise


def _target(path: str | Path) -> Path:
    """Where a path leads, if a file may stand there."""
    if not str(path):
        raise UsageError("output '' is no file name; write it like plan.json")
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise UsageError(f"{path}: cannot be written: it is a folder; add a file name, for example plan.json")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: cannot be written: there is no folder {target.parent}")
    if target.exists() and not os.access(target, os.W_OK):
        raise UsageError(f"{path}: cannot be written: it is read-only")
    return target


def _cannot_write(path: str | Path, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or str(error)
    return UsageError(f"{path}: cannot be written: {reason.lower()}")
