"""A strict YAML reader: numbers are numbers, keys are unique, and every mistake is told with file, line and key.

YAML's own rules read 1e18 as text, `no` as False and let a duplicate key win; here a scalar is null, true or false, a
number (any spelling that Python's `float` takes and that starts like a number), or text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from moeplan.errors import LawError

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?\d+")
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


class Section(dict[str, Any]):
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

    def section(self, key: str, *, optional: bool = False) -> Section:
        """The mapping under `key`; with `optional`, an empty one where it is absent."""
        if optional and key not in self:
            return Section(self.file, f"{self.path}.{key}".lstrip("."), self.line)
        return self._typed(key, Section, "a mapping", None)  # type: ignore[no-any-return]

    def sections(self, key: str) -> list[Section]:
        """The list of mappings under `key`; empty where absent."""
        items = self._typed(key, list, "a list", [])
        for item in items:
            if not isinstance(item, Section):
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


def _scalar(node: Any) -> Any:
    text = node.value
    if node.style:  # quoted or block text stays text
        return text
    if text in ("", "null", "~"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _build(node: Any, file: str, path: str) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, file, f"{path}[{index}]") for index, item in enumerate(node.value)]
    section = Section(file, path, node.start_mark.line + 1)
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            raise section.error(None, "has a key that is not text")
        if key in section:
            line = key_node.start_mark.line + 1
            raise LawError(f"{file}, line {line}: {f'{path}.{key}'.lstrip('.')} stands twice")
        section.lines[key] = key_node.start_mark.line + 1
        section[key] = _build(value_node, file, f"{path}.{key}".lstrip("."))
    return section


def read_yaml(text: str, file: str) -> Section:
    """Parse YAML text whose top level is a mapping; `file` names it in errors.

    Raises `LawError` with file and line for broken YAML, anchors and aliases, a duplicate key, or another top level.
    """
    try:
        node = yaml.compose(text, Loader=_Base)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise LawError(f"{file}{line}: not valid YAML: {problem}") from None
    except RecursionError:
        raise LawError(f"{file}: nested too deeply to be a law") from None
    if not isinstance(node, yaml.MappingNode):
        raise LawError(f"{file}, line 1: the file must be a mapping of keys, as in the bundled laws")
    try:
        return _build(node, file, "")  # type: ignore[no-any-return]
    except RecursionError:  # an anchor that holds itself
        raise LawError(f"{file}: refers to itself") from None


def read_yaml_file(path: Path) -> tuple[Section, bytes]:
    """Read a YAML file; returns its content and its raw bytes (for digests). Raises `LawError` if unreadable."""
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except OSError as error:
        raise LawError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise LawError(f"{path}: is not UTF-8 text") from None
    if "\0" in text:
        raise LawError(f"{path}: is not text")
    return read_yaml(text, str(path)), raw
