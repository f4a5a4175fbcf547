"""Memory of one layer on one GPU: its params by how they are spread, what it keeps, and what its passes add.

Sizes are those of one architecture or of a grid of them, as in `moeplan.architecture.counting`. What layouts have in
common is counted once for all of them (`Counted`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from moeplan.architecture import counting
from moeplan.architecture.blocks import UNIFORM
from moeplan.architecture.counting import Shape, Size
from moeplan.cost.training.activations import (
    KeptTensor,
    kept_bytes,
    kept_tensors,
    recomputed_bytes,
    transient_bytes,
)
from moeplan.cost.training.kinds import LayerKind, trained_attentions
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout
from moeplan.numerics.elementwise import anywhere


@dataclass
class Counted:
    """Costs that layouts of one architecture under the same settings share, kept from one to the next."""

    parts: dict[tuple[object, ...], Any] = field(default_factory=dict)
    """What was counted, by what it depends on."""

    def once(self, key: tuple[object, ...], count: Callable[[], Any]) -> Any:
        """What `count` gives, counted once for all layouts that agree in `key`."""
        if key not in self.parts:
            self.parts[key] = count()
        return self.parts[key]


@dataclass(frozen=True)
class LayerMemory:
    """One layer on one GPU: params by how they are spread and stepped, bytes kept and added, shapes of its weights."""

    kind: LayerKind
    """The kind of layer."""
    matrices: Size
    """Params outside routed experts."""
    experts: Size
    """Params of routed experts."""
    vectors: Size
    """Params of router and norms."""
    tensors: list[KeptTensor]
    """What it keeps without recomputation."""
    transient: Size
    """The most that its own passes add [bytes]."""
    shapes: tuple[tuple[Size, Size], ...]
    """(rows, columns) of its weights."""
    amounts: dict[tuple[int, int], tuple[Size, Size]] = field(default_factory=dict, compare=False)
    """What `kept_and_recomputed` has given."""

    def kept_and_recomputed(self, layout: Layout, num_layers: Size) -> tuple[Size, Size]:
        """Bytes that `num_layers` of it keep, and bytes that recomputation brings back; counted once."""
        if isinstance(num_layers, np.ndarray):
            if layout.recompute == "full" and layout.recompute_layers > 1:
                return kept_bytes(self.tensors, layout, num_layers), recomputed_bytes(self.tensors, layout, num_layers)
            kept, again = self.kept_and_recomputed(layout, 1)
            return num_layers * kept, again
        key = num_layers, layout.recompute_layers
        if key not in self.amounts:
            kept = kept_bytes(self.tensors, layout, num_layers)
            self.amounts[key] = kept, recomputed_bytes(self.tensors, layout, num_layers)
        return self.amounts[key]

    @property
    def params(self) -> Size:
        """All params."""
        return self.matrices + self.experts + self.vectors


def layer_memory(
    shape: Shape, layout: Layout, kind: LayerKind, settings: TrainingSettings, counted: Counted
) -> LayerMemory:
    """One layer of a kind; what other layouts have alike is taken from `counted`."""
    found: LayerMemory = counted.once(
        ("layer", layout.layer_key(kind.moe), kind), lambda: _layer_memory(shape, layout, kind, settings, counted)
    )
    return found


def _layer_memory(
    shape: Shape, layout: Layout, kind: LayerKind, settings: TrainingSettings, counted: Counted
) -> LayerMemory:
    tensors = layer_tensors(shape, layout, kind, settings, counted)
    matrices, experts, vectors = layer_params(shape, layout, kind, counted)
    transient = counted.once(
        # recomputation matters by what it drops alone
        ("transient", *_tokens_key(layout, kind), layout.ep if kind.moe else 1, layout.recompute == "selective"),
        lambda: transient_bytes(shape, layout, settings.seq_len, kind, tensors, settings.imbalance),
    )
    shapes = counted.once(("shapes", kind, layout.tp, layout.etp), lambda: tuple(_weight_shapes(shape, layout, kind)))
    return LayerMemory(kind, matrices, experts, vectors, tensors, transient, shapes)


def _tokens_key(layout: Layout, kind: LayerKind) -> tuple[object, ...]:
    """What decides the activations of a layer, recomputation and ep aside."""
    return kind, layout.tp, layout.etp, layout.cp, layout.micro_batch, layout.sequence_parallel


def layer_tensors(
    shape: Shape, layout: Layout, kind: LayerKind, settings: TrainingSettings, counted: Counted
) -> list[KeptTensor]:
    """`kept_tensors` of one layer of a kind; what other layouts have alike is taken from `counted`."""
    found: list[KeptTensor] = counted.once(
        ("tensors", *_tokens_key(layout, kind)),
        lambda: kept_tensors(
            shape,
            layout,
            settings.seq_len,
            kind,
            imbalance=settings.imbalance,
            weighted_activation=settings.weighted_activation,
        ),
    )
    return found


def layer_params(
    architecture: Shape, layout: Layout, kind: LayerKind, counted: Counted | None = None
) -> tuple[Size, Size, Size]:
    """(matrices outside routed experts, routed experts, router and norms) of one layer on one GPU [params].

    tp splits attention (`Attention.on_device`) and feed-forward widths; norms, router and maps to a latent width are
    whole on each GPU; experts are split by ep and etp. Params of a model that belong to no layer's part
    (`Blocks.extra_params`) are spread over its layers as norms are, tables that are looked up aside.
    """
    counted = counted or Counted()
    matrices, vectors = counted.once(
        ("dense params", kind, layout.tp), lambda: _dense_params(architecture, layout, kind)
    )
    experts = counted.once(
        ("expert params", kind.moe, layout.ep, layout.etp), lambda: _expert_params(architecture, layout, kind)
    )
    return matrices, experts, vectors


def _dense_params(architecture: Shape, layout: Layout, kind: LayerKind) -> tuple[Size, Size]:
    """(matrices outside routed experts, router and norms) of `layer_params`: no ep or etp counts."""
    tp, blocks = layout.tp, counting.blocks_of(architecture)
    share = counting.Changed(
        architecture,
        attentions=[(1, trained_attentions(architecture)[kind.place].on_device(tp))],
        blocks=UNIFORM if blocks is UNIFORM else replace(blocks, attentions=(), bare_layers=(), extra_params=()),
        dense_ffns=[(int(not (kind.moe or kind.bare)), architecture.d_ff // tp)],
        d_shared_expert=architecture.d_shared_expert / tp,
        num_layers=1,
        num_moe_layers=int(kind.moe),
        d_dense_residual=architecture.d_dense_residual // tp,
        num_final_norms=0,
    )
    groups = counting.params_by_group(share, 0)
    matrices = groups["attention"] + groups["dense_ffn"] + groups["shared_experts"] + groups["routed_experts"]
    extra = sum(params for group, params in blocks.extra_params if group != "input_embedding")
    return matrices, groups["router"] + groups["norms"] + extra / architecture.num_layers


def _expert_params(architecture: Shape, layout: Layout, kind: LayerKind) -> Size:
    """Routed experts of `layer_params`."""
    if not kind.moe:
        return 0.0
    one = counting.Changed(architecture, d_expert=architecture.d_expert / layout.etp)
    return architecture.num_experts / layout.ep * counting.expert_params(one)


def _weight_shapes(architecture: Shape, layout: Layout, kind: LayerKind) -> list[tuple[Size, Size]]:
    """(rows, columns) of every weight of one layer on one GPU that TransformerEngine multiplies by."""
    d, tp = architecture.d_model, layout.tp
    shapes: list[tuple[Size, Size]] = trained_attentions(architecture)[kind.place].on_device(tp).stored_matrices(d)
    gated = counting.blocks_of(architecture).gated
    widths = [] if kind.moe or kind.bare else [architecture.d_ff / tp]
    if kind.moe:
        inner, width = counting.expert_width(architecture), architecture.d_expert / layout.etp
        shapes = [*shapes, ((1 + counting.experts_gated(architecture)) * width, inner), (inner, width)]
        if counting.has_latent(architecture):
            shapes += [(inner, d), (d, inner)]
        widths = [
            architecture.num_shared_experts * architecture.d_shared_expert / tp,
            architecture.d_dense_residual / tp,
        ]
    return shapes + [shape for width in widths if anywhere(width) for shape in (((1 + gated) * width, d), (d, width))]
