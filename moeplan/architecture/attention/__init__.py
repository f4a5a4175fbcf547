"""Kinds of attention, one module each: `kind_named("gqa")`; what each answers is in `attention.kind`.

The list of kinds is the list of modules in this folder: a new one is a new module with a subclass of `Attention`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from moeplan.architecture.attention.kind import Activation, Attention, loaded_kinds
from moeplan.architecture.plannable import PLANNABLE
from moeplan.errors import UsageError

__all__ = ["KINDS", "Activation", "Attention", "attention_of", "kind_named"]


class _Kinds(Mapping[str, type[Attention]]):
    """Every kind by its name. A plan's own are modules of their name, loaded alone, so that it starts fast."""

    def __getitem__(self, name: str) -> type[Attention]:
        return _kind(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_all())

    def __len__(self) -> int:
        return len(_all())


@functools.cache
def _kind(name: str) -> type[Attention]:
    if name not in PLANNABLE:
        return _all()[name]
    importlib.import_module(f"{__name__}.{name}")
    return next(kind for kind in loaded_kinds(Attention) if kind.kind == name)


@functools.cache
def _all() -> dict[str, type[Attention]]:
    return {kind.kind: kind for kind in Attention.every_kind()}


KINDS = _Kinds()
"""Every kind by its name."""


def kind_named(name: object) -> type[Attention]:
    """The kind called `name` among those that every block of a plan can have; raises `UsageError` for others."""
    if name not in PLANNABLE:
        raise UsageError(f"attention {name!r} must be {' or '.join(PLANNABLE)}")
    return KINDS[str(name)]


def attention_of(shape: Any) -> Attention:
    """The attention of a shape whose blocks all have the same, from its fields."""
    return KINDS[shape.attention].of(shape)
