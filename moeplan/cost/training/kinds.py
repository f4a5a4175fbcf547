"""The kinds of layers that a model has, as training sees them, and how many of each a run of its layers holds."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any, NamedTuple

from moeplan.architecture import counting
from moeplan.architecture.attention import Attention
from moeplan.architecture.counting import Shape, Size
from moeplan.architecture.shape import Architecture


class LayerKind(NamedTuple):
    """What tells the costs of one layer from those of another."""

    moe: bool
    """Whether it has experts."""
    place: int = 0
    """Its attention's place in `trained_attentions`."""
    bare: bool = False
    """Whether it has no feed-forward part."""


def trained_attentions(shape: Shape) -> list[Attention]:
    """Attention of each kind of layer, windows aside, which bound no memory of training."""
    own: list[Attention] | None = getattr(shape, "trained_attentions", None)
    return [attention for _, attention in counting.attentions(shape)] if own is None else own


def layer_kinds(architecture: Architecture) -> tuple[LayerKind, ...]:
    """The kind of every layer of a model, in its order."""
    places: tuple[int, ...] = getattr(architecture, "attention_places", (0,) * architecture.num_layers)
    bare = counting.blocks_of(architecture).bare_layers
    return _layer_kinds(architecture.moe_layer_pattern, architecture.num_dense_layers, places, bare)


@functools.lru_cache(maxsize=256)
def _layer_kinds(
    pattern: tuple[bool, ...] | None, num_dense: int, places: tuple[int, ...], bare: tuple[int, ...]
) -> tuple[LayerKind, ...]:
    without = set(bare)
    return tuple(
        LayerKind(pattern[i] if pattern else i >= num_dense, place, i in without) for i, place in enumerate(places)
    )


@functools.lru_cache(maxsize=256)
def kinds_by_stage(
    kinds: tuple[LayerKind, ...], chunks: tuple[int, ...], pp: int
) -> tuple[tuple[tuple[LayerKind, int], ...], ...]:
    """(kind, layers of it) of each pipeline stage; chunk i, of so many layers in the model's order, is on i mod pp."""
    counts: list[Counter[LayerKind]] = [Counter() for _ in range(pp)]
    start = 0
    for i, layers in enumerate(chunks):
        counts[i % pp].update(kinds[start : start + layers])
        start += layers
    return tuple(tuple(sorted(count.items())) for count in counts)


def kinds_among(shape: Shape, start: Size, stop: Size, first: bool) -> list[tuple[LayerKind, Size]]:
    """(kind, layers of it) among the layers from `start` to before `stop` of each design of a grid.

    The first layers of designs may be dense, and are there where `first`; attention follows the grid's pattern.
    """
    pattern = getattr(shape, "pattern", None)
    dense: Any = shape.num_dense_layers if first else 0
    if pattern is None:
        return [(LayerKind(False), dense), (LayerKind(True), stop - start - dense)]
    found: list[tuple[LayerKind, Size]] = []
    for place in range(len(trained_attentions(shape))):
        of_it = pattern.among(place, stop) - pattern.among(place, start)
        without = pattern.among(place, dense)
        found += [(LayerKind(False, place), without), (LayerKind(True, place), of_it - without)]
    return found
