"""Results as reports see them: every number with its text, its place in the JSON and its source.

    plan = View(found, plan_source)
    plan("{design.tokens} tokens, EL {leverage.low..high} at {level:2}")

A name in braces leads through fields, `[key]` and `[0]` to a number, which is written as its field's kind says
(`moeplan.quantities`) and keeps its JSON pointer; nobody types one. After a colon stand the digits (`:4`), another kind
(`:share`, `:bytes2`) or a format of Python's (`:,`, `:.4f`); `a..b` is a range of two fields, and `a.low..high` that
of an `Estimate`. "{num_gpus} GPU(s)" reads "1 GPU", "8 GPUs".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from moeplan.estimates import Estimate
from moeplan.quantities import BY_KEY, BY_VARIABLE, KINDS, NUMBER, Kind, field_kinds, kind_of
from moeplan.report.text import NONE, Number, Source, Text, joined
from moeplan.texts import agreed

T = TypeVar("T")
SourceOf = Callable[[list[str]], Source | None]
"""From the parts of a JSON pointer to the source of what stands there; None for what the text around it says."""

_FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")
_STEP = re.compile(r"\[([^\]]+)\]|([^.\[\]]+)")
_FORMAT = re.compile(r"([a-z]*)(\d*)")


class View(Generic[T]):
    """A result, or a part of one. Its attributes are the result's; those that hold dataclasses are views again."""

    def __init__(self, value: T, source: SourceOf = lambda parts: None, path: str = "") -> None:
        self._value, self._source, self._path = value, source, path

    @property
    def it(self) -> T:
        """The result itself."""
        return self._value

    def __getattr__(self, name: str) -> Any:
        return self._within(getattr(self._value, name), f"{self._path}/{name}")

    def _within(self, value: Any, path: str) -> Any:
        if dataclasses.is_dataclass(value):
            return View(value, self._source, path)
        if isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            return tuple(View(item, self._source, f"{path}/{place}") for place, item in enumerate(value))
        return value

    def __call__(self, template: str, **more: str | Number) -> Text:
        """The text that a template makes; `more` are parts beside the fields. "-" if a number of it is not there."""
        pieces = _FIELD.split(template)
        parts: list[str | Number] = []
        before = ""
        for place in range(0, len(pieces) - 2, 3):
            literal, name, spec = pieces[place : place + 3]
            found = (more[name],) if name in more else tuple(self._written(name, spec or ""))
            if any(isinstance(part, Number) and part.value is None for part in found):
                return Text(NONE)
            parts += [agreed(before, literal), *found]
            before = found[-1].text if isinstance(found[-1], Number) else found[-1]
        return joined((*parts, agreed(before, pieces[-1])))

    def number_at(self, name: str, spec: str = "") -> Number:
        """One number by its name; without a value where the result has none."""
        value, path, kind = self._find(name)
        return Number(value, _text(value, kind, spec), path, self._source(path.split("/")[1:]))

    def count_at(self, name: str) -> Number:
        """How many there are of what stands at a name: a list, or a dict."""
        value, path, _ = self._find(name)
        return Number(len(value), f"{len(value):,}", path, self._source(path.split("/")[1:]))

    def source_at(self, name: str = "") -> Source | None:
        """Where what stands at a name, or here, comes from."""
        return self._source(f"{self._path}/{name}".rstrip("/").split("/")[1:])

    def kind_at(self, name: str) -> Kind:
        """How a number is written, by its name."""
        return self._find(name)[2]

    def _written(self, name: str, spec: str) -> Iterator[str | Number]:
        first, range_, last = name.partition("..")
        if not range_:
            value, _, kind = self._find(name)
            yield _text(value, kind, spec) if isinstance(value, (str, bool)) else self.number_at(name, spec)
            return
        stem = first.rpartition(".")[0]
        ends = self.number_at(first, spec), self.number_at(f"{stem}.{last}" if stem else last, spec)
        if None in (ends[0].value, ends[1].value):
            yield Number(None, NONE)
            return
        digits = int(spec) if spec.isdigit() else 0
        texts = self._find(first)[2].ends(ends[0].value, ends[1].value, digits)
        yield dataclasses.replace(ends[0], text=texts[0])
        if len(texts) > 1:
            yield "–"
            yield dataclasses.replace(ends[1], text=texts[1])

    def _find(self, name: str) -> tuple[Any, str, Kind]:
        """The value that a name leads to, its JSON pointer ("" for a property) and its kind."""
        value: Any = self._value
        path, kind, known = self._path, NUMBER, True
        for key, field in _STEP.findall(name):
            if field and isinstance(value, Estimate):
                value, path = getattr(value, field), f"{path}_{field}"
                continue
            if field:
                kinds = _kinds(value)
                known = known and field in kinds
                kind = kinds.get(field) or kind_of(field)
                kind = kind_of(value.variable) if kind is BY_VARIABLE else kind
                value, step = getattr(value, field), field
            elif isinstance(value, dict):
                kind = kind_of(key) if kind is BY_KEY else kind
                value, step = value.get(key), key
            else:
                value, step = value[int(key)], key
            path += "/" + step.replace("~", "~0").replace("/", "~1")
            if value is None:
                break
        return value, path if known else "", kind


def _kinds(value: Any) -> dict[str, Kind]:
    if not dataclasses.is_dataclass(value):
        return {}
    made: Any = type(value)
    return field_kinds(made)


def _text(value: Any, kind: Kind, spec: str) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    asked = _FORMAT.fullmatch(spec)
    if asked is None or (asked[1] and asked[1] not in KINDS):
        return format(value, spec)
    return KINDS.get(asked[1], kind).text(value, int(asked[2] or 0))
