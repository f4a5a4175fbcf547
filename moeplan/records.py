"""Frozen dataclasses to JSON and back, and their JSON Schema: one truth for files, docs and types.

Fields may be str, int, float, bool, None, other such dataclasses, tuples of one type or of given ones, dicts from str,
and unions with None; an `Estimate` has a key for the number and one for each end. JSON has no infinity and no NaN: both
are refused, in either direction. A text that a file may bring says its kind (`Line`, `Word`, `Version`, `Digest`),
which is checked where it is read.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import math
import re
import textwrap
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from moeplan.errors import UsageError
from moeplan.estimates import Estimate
from moeplan.quantities import QUANTITIES, Kind, field_kinds
from moeplan.texts import is_control

T = TypeVar("T")


@dataclass(frozen=True)
class TextKind:
    """What a text of a file may be."""

    words: str
    """The same in words, for the refusal."""
    pattern: str
    """Regular expression of all of it; no text of any kind holds a control character."""

    def check(self, text: str, place: str) -> str:
        """Return `text`; raises `UsageError` with its place if it is none of this kind."""
        if any(map(is_control, text)) or not re.fullmatch(self.pattern, text):
            raise UsageError(f"{place} is {_short(text)}, must be {self.words}")
        return text


Line = Annotated[str, TextKind("one line of text", r".{0,20000}")]
"""A sentence, a name, a command: one line."""
Word = Annotated[str, TextKind("a word", r"[\w.+:-]{1,100}")]
"""A name out of a set that the code knows: a dtype, a variable, a scheme."""
Version = Annotated[str, TextKind("a version such as 0.1.0", r"\d[\w.+!-]{0,99}")]
"""The version of a program."""
Digest = Annotated[str, TextKind("8 to 64 hexadecimal digits", r"[0-9a-f]{8,64}")]
"""The start of a SHA-256."""


def to_json(value: Any) -> Any:
    """A dataclass (or a value inside one) as JSON's types; floats keep 10 significant digits.

    Raises `UsageError` for an infinite float or NaN.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        data = {}
        for name, ends in _keys(type(value)).items():
            item = getattr(value, name)
            data[name] = to_json(item)
            for end, key in ends.items():
                data[key] = to_json(getattr(item, end, None))
        return data
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UsageError(f"{value} cannot be written as JSON; give a finite number")
        return float(f"{value:.10g}")
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    return value


class Record:
    """A dataclass that is a whole document, so that it writes itself as JSON."""

    def to_json(self) -> dict[str, Any]:
        """It as JSON's types."""
        data: dict[str, Any] = to_json(self)
        return data

    def to_text(self) -> str:
        """It as the text of a JSON file."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"


def from_json(kind: type[T], data: Any, where: str = "") -> T:
    """The inverse of `to_json`; raises `UsageError` with the place of anything missing, unknown or of a wrong type."""
    return _read(kind, data, where)  # type: ignore[no-any-return]


@functools.cache
def hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(kind, include_extras=True)


@functools.cache
def _keys(kind: type) -> dict[str, dict[str, str]]:
    """The fields of a dataclass; for one that holds an `Estimate` also the keys of its ends, by attribute."""
    found = {}
    for name in (f.name for f in dataclasses.fields(kind)):
        hint = hints(kind)[name]
        if typing.get_origin(hint) is Annotated:
            hint = typing.get_args(hint)[0]
        is_estimate = Estimate in (hint, *typing.get_args(hint))
        found[name] = {end: f"{name}_{end}" for end in ("low", "high")} if is_estimate else {}
    return found


def _read(kind: Any, data: Any, where: str) -> Any:
    kind = float if kind is Estimate else kind
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    place = where or "the file"
    if origin is Annotated:
        value = _read(arguments[0], data, where)
        for said in arguments[1:]:
            value = said.check(value, place) if isinstance(said, TextKind) else value
        return value
    if origin in (typing.Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        return _read(_one_of([a for a in arguments if a is not type(None)], data), data, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kinds := _every_kind(kind):
            return _read(_one_of(_of_kind(kinds, data, place), data), data, where)
        if not isinstance(data, dict):
            raise UsageError(f"{place} must be an object, not {_short(data)}")
        fields = [f for f in dataclasses.fields(kind) if f.init]
        keys = _keys(kind)
        unknown = sorted(set(data) - {*keys, *(key for ends in keys.values() for key in ends.values())})
        if unknown:
            raise UsageError(f"{place} has the unknown key {unknown[0]!r}")
        missing = [key for f in fields for key in (f.name, *keys[f.name].values()) if key not in data]
        if missing:
            raise UsageError(f"{place} lacks the key {missing[0]!r}")
        prefix = f"{where}." if where else ""
        values = {f.name: _read(hints(kind)[f.name], data[f.name], prefix + f.name) for f in fields}
        for name, ends in keys.items():
            if ends:
                values[name] = _estimate(values[name], data, [*ends.values()], prefix)
        try:
            return kind(**values)
        except UsageError as error:  # a class that checks itself, such as Architecture
            raise UsageError(f"{place}: {error}") from None
    if origin is tuple:
        if not isinstance(data, list):
            raise UsageError(f"{place} must be a list, not {_short(data)}")
        each_kind = arguments[:1] * len(data) if arguments[-1] is ... else arguments
        if len(each_kind) != len(data):
            raise UsageError(f"{place} must be a list of {len(each_kind)}, not of {len(data)}")
        return tuple(
            _read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(each_kind, data, strict=True))
        )
    if origin is dict:
        if not isinstance(data, dict):
            raise UsageError(f"{place} must be an object, not {_short(data)}")
        return {
            _read(arguments[0], key, f"a key of {place}"): _read(arguments[1], item, f"{where}.{key}")
            for key, item in data.items()
        }
    if origin is typing.Literal:
        if data not in arguments:
            raise UsageError(f"{place} is {_short(data)}, must be one of {', '.join(map(str, arguments))}")
        return data
    if kind is float and isinstance(data, (int, float)) and not isinstance(data, bool):
        try:
            number = float(data)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise UsageError(f"{place} is {_short(data)}, must be a finite number")
        return number
    if kind is int and isinstance(data, int) and abs(data) >= 10**300:
        raise UsageError(f"{place} is {_short(data)}, must be a number below 1e300")
    if kind is Any or (isinstance(data, kind) and not (isinstance(data, bool) and kind is not bool)):
        return data
    raise UsageError(f"{place} is {_short(data)}, must be {kind.__name__}")


def _of_kind(classes: list[Any], data: Any, place: str) -> list[Any]:
    """Those of the classes that state the `kind` of the JSON, if it has one; raises `UsageError` if none does."""
    if not isinstance(data, dict) or "kind" not in data:
        return classes
    found = [one for one in classes if one.kind and one.kind == data["kind"]]
    if not found:
        known = ", ".join(one.kind for one in classes if one.kind)
        raise UsageError(f"{place}.kind is {_short(data['kind'])}, must be one of {known}")
    return found


def _one_of(classes: list[Any], data: Any) -> Any:
    """The class whose JSON `data` is, by its keys and by the name that a class may keep in `kind`.

    If it is none's, the first of those that share the most keys with it: its complaint says what is wrong.
    """

    def shared(one: Any) -> int:
        if not (dataclasses.is_dataclass(one) and isinstance(data, dict)):
            return 0
        return len(set(data) & {f.name for f in dataclasses.fields(one)})

    def fits(one: Any) -> bool:
        if not (dataclasses.is_dataclass(one) and isinstance(data, dict)):
            return False
        fields = {f.name: f for f in dataclasses.fields(one)}
        named = "kind" not in fields or fields["kind"].init or fields["kind"].default == data.get("kind")
        return named and set(data) == set(fields)

    return next((one for one in classes if fits(one)), max(classes, key=shared))


def _estimate(value: float | None, data: dict[str, Any], ends: list[str], prefix: str) -> Estimate | None:
    """A number that was read, with the ends of its interval."""
    low, high = (_read(float | None, data[key], prefix + key) for key in ends)
    if value is not None:
        return Estimate(value, low, high)
    if (low, high) != (None, None):
        raise UsageError(f"{prefix}{ends[0]} and {ends[1]} must be null where there is no number between them")
    return None


def _short(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 40 else text[:37] + "..."


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """The sentence under each field of a dataclass and of those it inherits from, read from their sources."""
    docs = {name: text for base in kind.__bases__ if base is not object for name, text in field_docs(base).items()}
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    for statement, following in itertools.pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            value = following.value if isinstance(following, ast.Expr) else None  # not what the next field is set to
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docs[statement.target.id] = inspect.cleandoc(value.value).replace("\n", " ")
    return docs


def json_schema(kind: Any, identity: str = "") -> dict[str, Any]:
    """The JSON Schema (2020-12) of a dataclass, or of a tuple of them, every field with its sentence.

    `identity` is a name and version such as moeplan.plan/2: it makes the schema's `$id`, and is the only value of the
    class's own field `schema`.
    """
    definitions: dict[str, Any] = {}
    root = _schema(kind, definitions)
    if identity:
        root = {"$id": f"https://github.com/moeplan/moeplan/schema/{identity.removeprefix('moeplan.')}", **root}
        own = definitions.get(getattr(kind, "__name__", ""), {}).get("properties", {}).get("schema")
        if own is not None:
            own["const"] = identity
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": definitions}


def _said(doc: str, name: str, kind: Kind) -> dict[str, str]:
    """The description of a field, its own or the glossary's, and the unit of its numbers."""
    description = doc or (f"{QUANTITIES[name].meaning}." if name in QUANTITIES else "")
    return {"description": description} | ({"unit": kind.unit} if kind.unit else {})


def _every_kind(kind: Any) -> list[Any]:
    """The classes that a field of this class may hold, if it names them by its own `every_kind`."""
    return list(kind.every_kind()) if "every_kind" in vars(kind) else []


_TYPES = {str: "string", int: "integer", float: "number", Estimate: "number", bool: "boolean", type(None): "null"}


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        schema = _schema(arguments[0], definitions)
        for said in arguments[1:]:
            schema |= {"pattern": f"^{said.pattern}$"} if isinstance(said, TextKind) else {}
        return schema
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(argument, definitions) for argument in arguments]}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kinds := _every_kind(kind):
            return {"anyOf": [_schema(each, definitions) for each in kinds]}
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}
            docs, known, units = field_docs(kind), hints(kind), field_kinds(kind)
            names = [f.name for f in dataclasses.fields(kind)]
            properties = {}
            for name in names:
                properties[name] = {**_schema(known[name], definitions), **_said(docs.get(name, ""), name, units[name])}
                for end, key in _keys(kind)[name].items():
                    said = _said(f"The {end} end of the interval of {name}.", "", units[name])
                    properties[key] = {**_schema(float | None, definitions), **said}
            definitions[kind.__name__] = {
                "type": "object",
                "description": (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " "),
                "properties": properties,
                "required": [*properties],
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin is tuple:
        if arguments[-1] is ...:
            return {"type": "array", "items": _schema(arguments[0], definitions)}
        parts = [_schema(argument, definitions) for argument in arguments]
        return {"type": "array", "prefixItems": parts, "minItems": len(parts), "items": False}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(arguments[1], definitions)}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if kind is Any:
        return {}
    return {"type": _TYPES[kind]}
