"""Parts of a block that no target but Hugging Face's older classes has: biases, sinks, gates and odd norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from moeplan.architecture.attention import KINDS
from moeplan.architecture.hybrid import HybridArchitecture
from moeplan.architecture.shape import PLAIN, Architecture
from moeplan.errors import InfeasibleError

T = TypeVar("T")


def by_attention(table: Mapping[str, T], shape: Architecture, target: str) -> T:
    """The entry of `table` for the shape's kind of attention; raises `InfeasibleError` where there is none."""
    if shape.attention not in table:
        raise InfeasibleError(f"{target} export is not written for {KINDS[shape.attention].label}")
    return table[shape.attention]


def require_plain(shape: Architecture, target: str, allowed: Sequence[str] = ()) -> None:
    """Raise `InfeasibleError` for a shape with more than plans have; `allowed` names what the target does express."""
    if isinstance(shape, HybridArchitecture) and "blocks" not in allowed:
        raise InfeasibleError(f"{target} export is not written for {_of_blocks(shape)}")
    for name, value in PLAIN.items():
        if name not in allowed and getattr(shape, name) != value:
            raise InfeasibleError(f"{target} export is not written for {name} {getattr(shape, name)!r}")
    if shape.num_kv_layers != shape.num_layers:
        raise InfeasibleError(f"{target} export is not written for layers that share keys and values")
    if shape.qk_norm == "full":
        raise InfeasibleError(f"{target} norms queries and keys by head; qk_norm 'full' is not expressible")


def _of_blocks(shape: HybridArchitecture) -> str:
    """What its blocks have that those of plain models have not."""
    labels = dict.fromkeys(attention.label for _, attention in shape.attentions)
    if labels:
        return f"{' and '.join(labels)} in one model" if len(labels) > 1 else next(iter(labels))
    return "blocks without gates" if not shape.blocks.gated else "blocks that differ"


def moe_layers(shape: Architecture) -> list[bool]:
    """True for each layer with experts."""
    return list(shape.moe_layer_pattern or (i >= shape.num_dense_layers for i in range(shape.num_layers)))
