"""Every file that moeplan is given: read within bounds, and written whole or not at all.

A command declares what it writes before it reads anything (`outputs`); from then on reading one of those files is
refused, so no output ever stands where an input was. Files are told apart by what they are, not by how they are
spelled: links, relative paths and hard links lead to the same one.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from moeplan.errors import OverwritingError, UsageError

LARGEST = 64 * 10**6
"""Bytes of a plan, a law, a config or another document at most; a thousand times the largest that there is."""

_outputs: ContextVar[tuple[str, ...]] = ContextVar("outputs", default=())
"""Files that the running command will write."""


@contextmanager
def outputs(given: Mapping[str, str]) -> Iterator[None]:
    """Declare what a command writes, by option: inside, none of it may be read.

    Raises `UsageError` where a file cannot be written, or where two options name one.
    """
    for path in given.values():
        check_writable(path)
    for (first, one), (second, other) in itertools.combinations(given.items(), 2):
        if _same(one, other) and not is_stream(one):
            raise UsageError(f"{first} and {second} are both {one}; give two file names")
    token = _outputs.set(tuple(given.values()))
    try:
        yield
    finally:
        _outputs.reset(token)


def open_source(path: str | Path) -> BinaryIO:
    """Open a file to read its bytes.

    Raises `UsageError` for an empty name, a folder, a device or a named pipe (which may have no end, or no beginning),
    and `OverwritingError` as `check_read` does. Pipes that the shell gives, such as /dev/stdin, are files.
    """
    source = check_read(path)
    try:
        state = source.stat()
        if not (stat.S_ISREG(state.st_mode) or stat.S_ISDIR(state.st_mode) or _descriptor(source) is not None):
            raise UsageError(f"{path}: cannot be read: it is {_kind(state.st_mode)}; give a file")
        if stat.S_ISDIR(state.st_mode):
            raise UsageError(f"{path}: cannot be read: is a directory; give a file")
        return cast(BinaryIO, source.open("rb"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path}: cannot be read: {reason.lower()}") from None


def read_source(path: str | Path, *, largest: int = LARGEST, what: str = "such file") -> bytes:
    """The bytes of a file; raises `UsageError` as `open_source` does, and for more than any `what` has."""
    with open_source(path) as file:
        too_large = os.fstat(file.fileno()).st_size > largest  # told before any of it is read
        try:
            content = b"" if too_large else file.read(largest + 1)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    if too_large or len(content) > largest:
        raise UsageError(f"{path}: is over {largest / 1e6:g} MB, far more than any {what}; give another file")
    return content


def read_text(path: str | Path, *, largest: int = LARGEST, instead: str = "") -> str:
    """The text of a UTF-8 file, without the mark that some editors begin it with.

    Raises `UsageError` as `read_source` does, and for what is no text, ending in `instead`, which says what to give.
    """
    return decoded(read_source(path, largest=largest), path, instead=instead)


def decoded(content: bytes, path: str | Path, *, instead: str = "") -> str:
    """`read_text` of bytes that were read from `path` already."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text{instead and f'; {instead}'}") from None
    if "\0" in text:
        raise UsageError(f"{path}: is not text{instead and f'; {instead}'}")
    return text


def read_json(path: str | Path, *, largest: int = LARGEST, what: str = "such file", instead: str = "") -> Any:
    """The JSON of a file.

    Raises `UsageError` as `read_source` does, for a key that stands twice with different values, and for what is no
    JSON, ending in `instead`.
    """
    import json  # which --help does without

    content = read_source(path, largest=largest, what=what)
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_once)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (ValueError, RecursionError):  # no UTF-8, no JSON, or numbers and nesting that Python refuses
        raise UsageError(f"{path}: is not JSON{instead}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in pairs:
        if key in data and data[key] != value:
            raise UsageError(f"has the key {key!r} twice, with different values")
        data[key] = value
    return data


def check_read(path: str | Path) -> Path:
    """The path of a file that is read; raises `OverwritingError` for one that the running command will write.

    Raises `UsageError` for an empty name, which would be the folder one is in.
    """
    if not str(path).strip():
        raise UsageError(f"input {str(path)!r} is no file name; write it like plan.json")
    for output in _outputs.get():
        if _same(output, path):
            raise OverwritingError(f"{output}: cannot be written: it is read here; give another file name")
    return Path(path)


def check_writable(path: str | Path) -> None:
    """Raise `UsageError` unless a file can be written there; to be called before hours of work."""
    try:
        target = _target(path)
        if not is_stream(path) and not target.exists():
            trial = temporary_beside(target)
            trial.touch(exist_ok=False)
            trial.unlink()
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None


@contextmanager
def atomic_write(path: str | Path) -> Iterator[TextIO]:
    """Open a file under a temporary name beside `path` and rename it at the end; on any error nothing is left.

    A device, a pipe or an open descriptor such as /dev/stdout is written directly. Raises `UsageError` naming the path.
    """
    direct = False
    try:
        target = _target(path)
        direct = is_stream(path)
        name = target if direct else temporary_beside(target)
        descriptor = _descriptor(path)
        where: int | Path = name if descriptor is None else os.dup(descriptor)
        file = open(where, "w" if direct else "x", encoding="utf-8", newline="\n")  # noqa: SIM115  # closed below
    except (OSError, ValueError) as error:
        raise _cannot_write(path, error) from None
    try:
        with file:
            yield file
        if not direct:
            os.replace(name, target)
    except BaseException as error:
        if not direct:
            with suppress(OSError):
                name.unlink()
        if isinstance(error, OSError) and error.filename is None:  # the write itself: a full disk
            raise _cannot_write(path, error) from None
        raise


def temporary_beside(target: Path) -> Path:
    """A name beside `target` that nobody can foresee, for a file that is renamed when it is whole; open it with "x"."""
    return target.with_name(f".{target.name[:200]}.{os.getpid()}-{os.urandom(4).hex()}.tmp")


def _target(path: str | Path) -> Path:
    """Where a path leads, if a file may stand there."""
    if not str(path):
        raise UsageError("output '' is no file name; write it like plan.json")
    target = Path(os.path.realpath(path))
    if str(path).endswith(("/", os.sep)) and not target.is_dir():
        raise UsageError(f"{path}: cannot be written: it names a folder; add a file name, for example plan.json")
    if _descriptor(path) is not None:
        return target
    if target.is_dir():
        raise UsageError(f"{path}: cannot be written: it is a folder; add a file name, for example plan.json")
    if not target.parent.is_dir():
        raise UsageError(f"{path}: cannot be written: there is no folder {target.parent}")
    if target.exists() and not os.access(target, os.W_OK):
        raise UsageError(f"{path}: cannot be written: it is read-only")
    return target


def _same(one: str | Path, other: str | Path) -> bool:
    """Whether two paths lead to one file, which need not exist."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(one, other)  # hard links, and names that differ in case where case is ignored
    except (OSError, ValueError):
        return False


def is_stream(path: str | Path) -> bool:
    """Whether bytes flow through it: a device, a pipe or a descriptor in place of a file."""
    return _descriptor(path) is not None or (os.path.exists(path) and not os.path.isfile(path))


def _descriptor(path: str | Path) -> int | None:
    """The open descriptor that a path names, as /dev/stdout, /dev/fd/63 and links to them do; None for others."""
    folders = {os.path.realpath(folder) for folder in ("/dev/fd", "/proc/self/fd")}
    name = os.path.abspath(path)
    for _ in range(40):  # as many links as a path may have
        folder, last = os.path.split(name)
        if last.isdecimal() and os.path.realpath(folder) in folders:
            return int(last)
        try:
            name = os.path.join(folder, os.readlink(name))
        except (OSError, ValueError):
            return None
    return None


def _kind(mode: int) -> str:
    return "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def _cannot_write(path: str | Path, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or str(error)
    return UsageError(f"{path}: cannot be written: {reason.lower()}")
