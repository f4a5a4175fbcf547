"""Models whose blocks differ or have more than an `Architecture` says: `HybridArchitecture`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from moeplan.architecture.attention import KINDS, Attention
from moeplan.architecture.blocks import UNIFORM, AttentionRun, Blocks
from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError, UsageError


@dataclass(frozen=True, kw_only=True)
class HybridArchitecture(Architecture):
    """An `Architecture` with `Blocks`; the fields of attention are those of its blocks with attention over tokens.

    Raises `UsageError` where the blocks' lists do not name each layer once.
    """

    blocks: Blocks
    """What its blocks have beside."""

    def __post_init__(self) -> None:
        super().__post_init__()
        named = [layer for run in self.blocks.attentions for layer in run.layers]
        if self.blocks.attentions and sorted(named) != list(range(self.num_layers)):
            raise UsageError(f"blocks.attentions must name each of {self.num_layers} layers once")
        if any(not 0 <= layer < self.num_layers for layer in self.blocks.bare_layers):
            raise UsageError(f"blocks.bare_layers must be layers from 0 to {self.num_layers - 1}")
        if len(self.blocks.dense_widths) not in (0, self.num_layers):
            raise UsageError(f"blocks.dense_widths must hold a width for each of {self.num_layers} layers")

    @cached_property
    def attentions(self) -> list[tuple[int, Attention]]:
        """(blocks, their attention), in the order of their last block; empty where all are the architecture's own."""
        runs = sorted(self.blocks.attentions, key=lambda run: max(run.layers))
        return [(len(run.layers), run.attention) for run in runs]

    @cached_property
    def uniform_attention(self) -> Attention:
        """The attention that every block has, windows aside; raises `InfeasibleError` where they differ in more."""
        kinds = self.trained_attentions
        if len(kinds) > 1:
            raise InfeasibleError(f"blocks have {_joined(sorted({x.label for x in kinds}))}, not one attention")
        return kinds[0]

    @cached_property
    def trained_attentions(self) -> list[Attention]:
        """The attentions that blocks have, windows aside; raises `InfeasibleError` where training is not modelled."""
        if self.blocks.dense_widths:
            raise InfeasibleError("training is modelled for dense blocks of one width; this model has several")
        runs = self.blocks.attentions
        kinds = dict.fromkeys(without_window(run.attention) for run in runs) if runs else [super().uniform_attention]
        if unknown := sorted({attention.label for attention in kinds if not attention.trainable}):
            raise InfeasibleError(f"training is not modelled for {_joined(unknown)}")
        return list(kinds)

    @cached_property
    def attention_places(self) -> tuple[int, ...]:
        """The place of every block's attention in `trained_attentions`."""
        places = [0] * self.num_layers
        for run in self.blocks.attentions:
            for layer in run.layers:
                places[layer] = self.trained_attentions.index(without_window(run.attention))
        return tuple(places)

    def to_dict(self) -> dict[str, Any]:
        """Every field that differs from its default; `architecture_from_dict` gives this back."""
        blocks: dict[str, Any] = {
            f.name: getattr(self.blocks, f.name)
            for f in dataclasses.fields(Blocks)
            if getattr(self.blocks, f.name) != f.default
        }
        if self.blocks.attentions:
            blocks["attentions"] = [
                {"layers": list(run.layers), **_stated(run.attention)} for run in self.blocks.attentions
            ]
        for name in _LISTS:
            if name in blocks:
                blocks[name] = [list(item) if isinstance(item, tuple) else item for item in blocks[name]]
        return {name: value for name, value in super().to_dict().items() if name != "blocks"} | {"blocks": blocks}


def _joined(labels: list[str]) -> str:
    return " and ".join(labels)


_LISTS = ("bare_layers", "dense_widths", "extra_params")


def _stated(attention: Attention) -> dict[str, Any]:
    return {
        f.name: getattr(attention, f.name)
        for f in dataclasses.fields(attention)
        if f.name == "kind" or getattr(attention, f.name) != f.default
    }


def without_window(attention: Attention) -> Attention:
    """The same without its window, where it has one and would see all tokens before without it."""
    if not attention.trainable or not getattr(attention, "window", 0):
        return attention
    plain: dict[str, Any] = {"window": 0} | ({"chunked": False} if hasattr(attention, "chunked") else {})
    return dataclasses.replace(attention, **plain)


def hybrid(architecture: dict[str, Any], blocks: Blocks) -> Architecture:
    """An `Architecture` of the given fields, with `blocks` where they are more than plain."""
    return Architecture(**architecture) if blocks == UNIFORM else HybridArchitecture(**architecture, blocks=blocks)


def architecture_from_dict(values: dict[str, Any]) -> Architecture:
    """Read what `to_dict` of either class wrote; raises `UsageError` for unknown or missing fields."""
    values = dict(values)
    given = values.pop("blocks", None)
    plain = Architecture.from_dict(values)
    if given is None:
        return plain
    given = dict(given)
    try:
        runs = tuple(_run(dict(run)) for run in given.pop("attentions", ()))
        for name in _LISTS:
            if name in given:
                given[name] = tuple(tuple(item) if isinstance(item, list) else item for item in given[name])
        blocks = Blocks(attentions=runs, **given)
    except (TypeError, KeyError, ValueError) as error:
        raise UsageError(f"blocks cannot be read: {error}") from None
    fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain) if f.init}
    return HybridArchitecture(**fields, blocks=blocks)


def _run(values: dict[str, Any]) -> AttentionRun:
    layers, kind = tuple(values.pop("layers")), values.pop("kind")
    return AttentionRun(KINDS[kind](**values), layers)
