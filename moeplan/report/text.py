"""Sentences that know their numbers: where each stands in the JSON, and where it comes from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from moeplan.texts import printable

EXTRAPOLATED = "*"
"""Follows a name or a number that lies outside the range a law was measured on."""
NONE = "-"
"""Stands where there is nothing to say."""


@dataclass(frozen=True)
class Source:
    """Where a number comes from; the HTML page shows it when the number is asked."""

    says: str
    """How the number came about, in a sentence or two."""
    law: str = ""
    """The law, or laws, that it rests on, by full name; "" for exact counts."""
    convention: str = ""
    """What is counted, and in which unit."""
    domain: str = ""
    """Inside or outside the law's measured range, with that range."""


@dataclass(frozen=True)
class Number:
    """A number of a result."""

    value: Any
    """The value itself; None where the result has none."""
    text: str
    """The value as it is written."""
    path: str = ""
    """JSON pointer (RFC 6901) to it in the result's JSON, as in /leverage/efficiency_leverage; "" if JSON lacks it."""
    source: Source | None = None
    """Where it comes from; None for what the text around it says."""


class Text(str):
    """A string that remembers its numbers; a plain string to everything but the HTML page."""

    numbers: tuple[tuple[int, Number], ...]
    """Each number with the place at which it begins."""
    source: Source | None
    """Where numbers come from that do not say; None for what is around the text."""

    def __new__(cls, text: str, source: Source | None = None, numbers: Iterable[tuple[int, Number]] = ()) -> Text:
        """A string with the numbers in it."""
        made = super().__new__(cls, text)
        made.source, made.numbers = source, tuple(numbers)
        return made

    @property
    def paths(self) -> tuple[str, ...]:
        """Where its numbers stand in the JSON."""
        return tuple(number.path for _, number in self.numbers if number.path)


def joined(parts: Iterable[str | Number], source: Source | None = None) -> Text:
    """Strings, texts and numbers one after the other, as one text; `source` is for those that do not say."""
    text, numbers = "", []
    for part in parts:
        if isinstance(part, Number):
            numbers.append((len(text), part))
        elif isinstance(part, Text):
            inner = part.source
            numbers += [
                (len(text) + at, n if n.source or not inner else Number(n.value, n.text, n.path, inner))
                for at, n in part.numbers
            ]
        text += part.text if isinstance(part, Number) else part
    return Text(text, source, numbers)


def listed(texts: Iterable[str], between: str = ", ") -> Text:
    """Texts with something between them: a `str.join` that keeps the numbers."""
    parts = [part for text in texts for part in (between, text)]
    return joined(parts[1:])


def judges(laws: Sequence[str], weights: Mapping[str, float]) -> str:
    """The laws that choose, each with its weight where these differ."""
    return ", ".join(f"{law} (weight {weights[law]:g})" if law in weights else law for law in laws)


def attention_text(request: Any) -> str:
    """The attention that was asked for, and the latent width of experts where they have one."""
    kind, _, pattern = str(request.attention).partition("-")
    latent = f", experts in 1/{request.latent} of the width" if request.latent > 1 else ""
    return f"{kind.upper()}{pattern and f'-{pattern}'}{latent}"


def mark(text: str, extrapolated: object) -> Text:
    """`text`, flagged if it is extrapolated and says anything."""
    return joined(
        (text, EXTRAPOLATED if extrapolated and text != NONE else ""), text.source if isinstance(text, Text) else None
    )


B = TypeVar("B")


def with_texts(block: B, change: Callable[[str], str]) -> B:
    """A block, section or chart whose every string is changed; one that stays as it is keeps its numbers."""
    if isinstance(block, str):
        changed = change(block)
        return block if changed == block else cast(B, changed)
    if isinstance(block, tuple):
        return cast(B, tuple(with_texts(item, change) for item in block))
    if isinstance(block, (Number, Source)) or not dataclasses.is_dataclass(block) or isinstance(block, type):
        return block
    fields = {field.name: getattr(block, field.name) for field in dataclasses.fields(block)}
    changed_fields = {name: with_texts(value, change) for name, value in fields.items()}
    return dataclasses.replace(block, **changed_fields)


def visible(block: B) -> B:
    r"""A section or block without control codes: they stand as their escapes, such as \x1b; line breaks stay."""
    return with_texts(block, functools.partial(printable, keep="\n"))
