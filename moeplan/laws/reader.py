"""A strict YAML reader: numbers are numbers, keys are unique, and every mistake is told with file, line and key.

YAML's own rules read 1e18 as text, `no` as False and let a duplicate key win; here a scalar is null, true or false, a
number (any spelling that Python's `float` takes and that starts like a number), or text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from moeplan.errors import LawError, UsageError
from moeplan.files import read_text

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_DEEPEST = 20


class FileSection(dict[str, Any]):
    """A mapping of a file that knows where it stands, so that a mistake in it can be pointed at."""

    def __init__(self, file: str, path: str, line: int) -> None:
        super().__init__()
        self.file, self.path, self.line = file, path, line
        self.lines: dict[str, int] = {}

    def error(self, key: str | None, reason: str) -> LawError:
        """The error for `key` of this section (or the section itself): file, line, key, reason."""
        where = ".".join(part for part in (self.path, key) if part)
        line = self.lines.get(key, self.line) if key else self.line
        return LawError(f"{self.file}, line {line}: {where or 'the file'} {reason}")

    def only(self, allowed: Iterable[str], required: Iterable[str] = ()) -> None:
        """Raise `LawError` unless the keys are among `allowed` and include `required`."""
        allowed = list(allowed)
        for key in self:
            if key not in allowed:
                raise self.error(key, f"is not a known key; known are {', '.join(sorted(allowed))}")
        for key in required:
            if key not in self:
                raise self.error(None, f"lacks the key {key}")

    def text(self, key: str, default: str | None = None) -> str:
        """The text under `key`; raises `LawError` if it is something else, or absent without a default."""
        return self._typed(key, str, "text", default)  # type: ignore[no-any-return]

    def number(self, key: str, default: float | None = None) -> float:
        """The number under `key`."""
        return float(self._typed(key, (int, float), "a number", default))

    def section(self, key: str, *, optional: bool = False) -> FileSection:
        """The mapping under `key`; with `optional`, an empty one where it is absent."""
        if optional and key not in self:
            return FileSection(self.file, f"{self.path}.{key}".lstrip("."), self.line)
        return self._typed(key, FileSection, "a mapping", None)  # type: ignore[no-any-return]

    def sections(self, key: str) -> list[FileSection]:
        """The list of mappings under `key`; empty where absent."""
        items = self._typed(key, list, "a list", [])
        for item in items:
            if not isinstance(item, FileSection):
                raise self.error(key, f"must hold mappings, not {item!r}")
        return items  # type: ignore[no-any-return]

    def texts(self, key: str) -> tuple[str, ...]:
        """The list of texts under `key`; empty where absent."""
        items = self._typed(key, list, "a list", [])
        for item in items:
            if not isinstance(item, str):
                raise self.error(key, f"must hold texts, not {item!r}")
        return tuple(items)

    def numbers(self) -> dict[str, float]:
        """All of this section as numbers."""
        return {key: self.number(key) for key in self}

    def _typed(self, key: str, kind: Any, wanted: str, default: Any) -> Any:
        if key not in self:
            if default is None:
                raise self.error(None, f"lacks the key {key}")
            return default
        value = self[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.error(key, f"is {value!r}, must be {wanted}")
        return value


def _scalar(event: Any, file: str, path: str) -> Any:
    text = event.value
    if event.style:  # quoted or block text stays text
        return text
    if text in ("", "null", "~"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if not _INTEGER.fullmatch(text) and not _FLOAT.fullmatch(text):
        return text
    number = float(text)
    if math.isinf(number):
        shown = text if len(text) <= 20 else f"{text[:20]}..."
        raise LawError(f"{file}, line {event.start_mark.line + 1}: {path} is {shown}, too large to be a number")
    return int(text) if _INTEGER.fullmatch(text) else number


def _build(event: Any, events: Iterator[Any], file: str, path: str = "", depth: int = 0) -> Any:
    """The value that starts with `event`; takes what belongs to it from `events`."""
    line = event.start_mark.line + 1
    if getattr(event, "anchor", None):
        # Aliases nested in aliases make gigabytes of a few lines, and no law needs them.
        reason = "is a YAML anchor or alias; write the value out, or quote a text that starts with & or *"
        raise LawError(f"{file}, line {line}: {path or 'the file'} {reason}")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event, file, path)
    if depth == _DEEPEST:
        raise LawError(f"{file}, line {line}: {path} is nested too deeply to be a law")
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(_build(item, events, file, f"{path}[{len(items)}]", depth + 1))
        return items
    section = FileSection(file, path, line)
    while not isinstance(key_event := next(events), yaml.MappingEndEvent):
        line = key_event.start_mark.line + 1
        if not isinstance(key_event, yaml.ScalarEvent):
            raise LawError(f"{file}, line {line}: {path or 'the file'} has a key that is not text")
        key = key_event.value
        inside = f"{path}.{key}".lstrip(".")
        if key in section:
            raise LawError(f"{file}, line {line}: {inside} stands twice")
        section.lines[key] = line
        section[key] = _build(next(events), events, file, inside, depth + 1)
    return section


def read_yaml(text: str, file: str) -> FileSection:
    """Parse YAML text whose top level is a mapping; `file` names it in errors.

    Raises `LawError` with file and line for broken YAML, anchors and aliases, a duplicate key, or another top level.
    """
    try:
        events = yaml.parse(text, Loader=_Base)
        content: FileSection | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if content is not None:
                    raise LawError(f"{file}: holds a second YAML document; a law file is one")
                top = _build(next(events), events, file)
                if not isinstance(top, FileSection):
                    raise LawError(f"{file}, line 1: the file must be a mapping of keys, as in the bundled laws")
                content = top
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise LawError(f"{file}{line}: not valid YAML: {problem}") from None
    if content is None:
        raise LawError(f"{file}, line 1: the file is empty")
    return content


def read_text_file(path: Path) -> str:
    """The text of a file; raises `LawError` if it is unreadable or not text."""
    try:
        return read_text(path)
    except UsageError as error:
        raise LawError(str(error)) from None
