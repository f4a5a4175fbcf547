"""Memory of training one exact architecture, per GPU and pipeline stage, by group [bytes].

The peak of a stage is its params' weights, gradients and optimizer state (`moeplan.cost.training.states`), the
trainer's standing buffers, and the fullest moment of a step (`moeplan.cost.training.activations`), which is one of

* the end of a forward or start of a backward pass: activations of every micro-batch in flight, and the transient of the
  stage's largest layer;
* the output layer's backward pass, on the last stage: the same activations, and the logits with their transient;
* the embedding's gradient, on the first stage: bf16 [vocabulary, d_model] beside the micro-batches still in flight.

Figures are bytes allocated, as `torch.cuda.max_memory_allocated` counts. The caching allocator reserves more: 3 to
7 % in the runs measured for SimuMax's B200 release (docs/b200, v1.2). The CUDA context, NCCL buffers and
multi-token-prediction layers are not counted.

`training_memory` is for one architecture, `training_bytes` for a grid of them; both count by the same lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from moeplan.architecture import counting
from moeplan.architecture.blocks import UNIFORM
from moeplan.architecture.counting import Shape, Size
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.activations import (
    KeptTensor,
    kept_bytes,
    kept_tensors,
    recomputed_bytes,
    tokens,
    transient_bytes,
)
from moeplan.cost.training.kinds import LayerKind, kinds_among, kinds_by_stage, layer_kinds, trained_attentions
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.states import Scheme, load_scheme
from moeplan.errors import UsageError
from moeplan.numerics.elementwise import anywhere, largest, where

TRAINING_GROUPS = ("weights", "gradients", "optimizer", "buffers", "activations", "logits", "transient")
"""The groups whose sum is the peak of a stage."""

_WORKSPACE = 32 * 2**20
"""cuBLAS workspace on Hopper and later: PyTorch CUDABlas.cpp and TransformerEngine get_cublas_workspace_size_bytes."""
_GROUPED_STREAMS = 4
"""Streams, each with a workspace, of TransformerEngine's grouped products (get_num_cublas_streams)."""
_MEGATRON_VOCAB_MULTIPLE = 128
"""Megatron-LM pads the vocabulary to a multiple of this times tp (--make-vocab-size-divisible-by)."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings besides the layout that decide the memory of training. Raises `UsageError` for values that cannot be."""

    seq_len: int = 4096
    """Tokens of a training sequence."""
    optimizer: str = "megatron"
    """Scheme of weights, gradients and optimizer state: a name in `moeplan.cost.training.states.SCHEMES`."""
    num_micro_batches: int | None = None
    """Micro-batches of a step in one pipeline; None for as many as the schedule holds in flight."""
    fused_cross_entropy: bool = True
    """Whether the loss writes its gradient over the bf16 logits (TransformerEngine); else an fp32 copy is kept."""
    weighted_activation: bool = True
    """Whether routing weights multiply the experts' activation; see `activations.kept_tensors`."""
    imbalance: float = 1.0
    """Rows that reach the fullest GPU's experts over an even share; 1 for forced balance."""

    def __post_init__(self) -> None:
        for name in ("seq_len", "num_micro_batches"):
            value = getattr(self, name)
            if name == "num_micro_batches" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} {value!r} must be a whole number of at least 1")
        if not 1 <= self.imbalance <= 1e4:
            raise UsageError(f"imbalance {self.imbalance!r} must be at least 1 (1 is an even spread)")
        load_scheme(self.optimizer)


@dataclass(frozen=True)
class StageMemory:
    """Peak memory of one GPU of a pipeline stage."""

    stage: int
    """Stage, from 0."""
    groups: dict[str, float]
    """Bytes by group, at the fullest moment; the groups are `TRAINING_GROUPS`."""
    moment: str
    """The fullest moment: "layer", "logits" or "embedding"."""

    @property
    def total(self) -> float:
        """Bytes of all groups."""
        return sum(self.groups.values())

    @property
    def model_state(self) -> float:
        """Bytes of weights, gradients and optimizer state."""
        return self.groups["weights"] + self.groups["gradients"] + self.groups["optimizer"]


@dataclass(frozen=True)
class TrainingMemory:
    """Peak memory of every pipeline stage."""

    architecture: Architecture
    """The architecture it is for."""
    layout: Layout
    """The layout it is for."""
    settings: TrainingSettings
    """The settings it is for."""
    heaviest: StageMemory
    """The stage that needs most; a GPU must hold it."""

    @cached_property
    def stages(self) -> tuple[StageMemory, ...]:
        """One entry a pipeline stage."""
        model = _Model(self.architecture, self.layout, self.settings, Counted())
        stages = _kinds_of_stages(self.architecture, self.layout)
        return tuple(_stage_memory(model, stage, layers) for stage, layers in enumerate(stages))

    @cached_property
    def total(self) -> float:
        """Bytes a GPU must have: those of the heaviest stage."""
        return self.heaviest.total


@dataclass
class Counted:
    """Costs that layouts of one architecture under the same settings share, kept from one to the next."""

    layers: dict[tuple[object, ...], _Layer] = field(default_factory=dict)
    """Layers on one GPU by `Layout.layer_key` and kind."""
    states: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)
    """Weights, gradients, optimizer state and buffers of a stage, by its layers and how they are spread."""
    parts: dict[tuple[object, ...], Any] = field(default_factory=dict)
    """What layers and stages that differ in more have in common."""

    def once(self, key: tuple[object, ...], count: Callable[[], Any]) -> Any:
        """What `count` gives, counted once for all layouts that agree in `key`."""
        if key not in self.parts:
            self.parts[key] = count()
        return self.parts[key]


def training_memory(
    architecture: Architecture,
    layout: Layout,
    settings: TrainingSettings | None = None,
    counted: Counted | None = None,
) -> TrainingMemory:
    """Peak bytes of one GPU of each pipeline stage, by group.

    `counted` holds what was counted for other layouts of this architecture, whose settings may differ in
    `num_micro_batches` alone. Raises `InfeasibleError` for a layout that the architecture cannot have.
    """
    settings = settings or TrainingSettings()
    layout.check(architecture, settings.seq_len)
    model = _Model(architecture, layout, settings, counted or Counted())
    stages = _kinds_of_stages(architecture, layout)
    # stages with the same layers, that are both or neither the first, and both or neither the last, differ in how many
    # micro-batches are in flight alone: the first of them has most
    first = {(i == 0, i == layout.pp - 1, layers): i for i, layers in reversed(list(enumerate(stages)))}
    costs = [_stage_memory(model, stage, layers) for (_, _, layers), stage in sorted(first.items(), key=lambda x: x[1])]
    heaviest = max(costs, key=lambda stage: stage.total)
    return TrainingMemory(architecture, layout, settings, heaviest)


Layers = tuple[tuple[LayerKind, int], ...]
"""(kind, layers of it) of a stage."""


def _kinds_of_stages(architecture: Architecture, layout: Layout) -> tuple[Layers, ...]:
    return kinds_by_stage(layer_kinds(architecture), layout.chunks(architecture.num_layers), layout.pp)


class _Model:
    """Costs that the stages share: params, activations and buffers of one layer of each kind on one GPU."""

    def __init__(
        self, shape: Shape, layout: Layout, settings: TrainingSettings, counted: Counted, *, together: bool = False
    ) -> None:
        self.architecture, self.layout, self.settings, self.counted = shape, layout, settings, counted
        self.together = together  # whether weights, gradients and optimizer state need not be told apart
        self.scheme: Scheme = load_scheme(settings.optimizer)
        self.tokens = tokens(shape, layout, settings.seq_len, settings.imbalance)
        multiple = layout.tp * (_MEGATRON_VOCAB_MULTIPLE if self.scheme.fused_gradients else 1)
        self.vocab_rows = -(-shape.vocab_size // multiple) * multiple // layout.tp

    def layer(self, kind: LayerKind) -> _Layer:
        """One layer of a kind, counted once."""
        key = self.layout.layer_key(kind.moe), kind
        if key not in self.counted.layers:
            self.counted.layers[key] = self._count_layer(kind)
        return self.counted.layers[key]

    def _count_layer(self, kind: LayerKind) -> _Layer:
        a, settings, layout = self.architecture, self.settings, self.layout
        split = kind, layout.tp, layout.etp
        tensors: list[KeptTensor] = self.counted.once(
            ("tensors", *split, layout.cp, layout.micro_batch, layout.sequence_parallel),
            lambda: kept_tensors(
                a,
                layout,
                settings.seq_len,
                kind,
                imbalance=settings.imbalance,
                weighted_activation=settings.weighted_activation,
            ),
        )
        matrices, experts, vectors = self.counted.once(
            ("params", *split, layout.ep), lambda: layer_params(a, layout, kind)
        )
        return _Layer(
            kind,
            matrices,
            experts,
            vectors,
            tensors,
            transient_bytes(a, layout, settings.seq_len, kind, tensors, settings.imbalance),
            self.counted.once(("shapes", *split), lambda: tuple(_weight_shapes(a, layout, kind))),
        )


@dataclass(frozen=True)
class _Layer:
    """One layer on one GPU: params by how they are spread and stepped, bytes kept and added, shapes of its weights."""

    kind: LayerKind
    matrices: Size
    experts: Size
    vectors: Size
    tensors: list[KeptTensor]
    transient: Size
    shapes: tuple[tuple[Size, Size], ...]
    amounts: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict, compare=False)

    def kept_and_recomputed(self, layout: Layout, num_layers: Size) -> tuple[Size, Size]:
        """Bytes that `num_layers` of it keep, and bytes that recomputation brings back; counted once."""
        if isinstance(num_layers, np.ndarray):
            if layout.recompute == "full":
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
        return self.matrices + self.experts + self.vectors


class _Share:
    """A shape as one GPU of a layout holds it: some fields have other values."""

    def __init__(self, shape: Shape, **changed: object) -> None:
        self.__dict__.update(changed)
        self._shape = shape

    def __getattr__(self, name: str) -> object:
        return getattr(self._shape, name)


def layer_params(architecture: Shape, layout: Layout, kind: LayerKind) -> tuple[Size, Size, Size]:
    """(matrices outside routed experts, routed experts, router and norms) of one layer on one GPU [params].

    tp splits attention (`Attention.on_device`) and feed-forward widths; norms, router and maps to a latent width are
    whole on each GPU; experts are split by ep and etp. Params of a model that belong to no layer's part
    (`Blocks.extra_params`) are spread over its layers as norms are, tables that are looked up aside.
    """
    tp, blocks = layout.tp, counting.blocks_of(architecture)
    share = _Share(
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
    experts: Size = 0.0
    if kind.moe:
        one = _Share(architecture, d_expert=architecture.d_expert / layout.etp)
        experts = architecture.num_experts / layout.ep * counting.expert_params(one)
    matrices = groups["attention"] + groups["dense_ffn"] + groups["shared_experts"] + groups["routed_experts"]
    extra = sum(params for group, params in blocks.extra_params if group != "input_embedding")
    return matrices, experts, groups["router"] + groups["norms"] + extra / architecture.num_layers


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


def _stage_memory(model: _Model, stage: int, layers: Layers) -> StageMemory:
    groups, moments = _stage_groups(model, stage, stage == 0, stage == model.layout.pp - 1, layers)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    return StageMemory(stage, groups | moments[moment], moment)


def training_bytes(
    shape: Shape,
    layout: Layout,
    settings: TrainingSettings | None = None,
    counted: Counted | None = None,
    *,
    limit: float = math.inf,
) -> Size:
    """`TrainingMemory.total` of many architectures under one layout that all of them may have [bytes].

    `shape` is a grid with int64 arrays, as in `counting`, whose first layers alone may be dense; layers are split
    evenly (`Layout.chunks`), without virtual stages. Where the first stages show that none stays within `limit`, the
    others are not asked.
    """
    settings = settings or TrainingSettings()
    model = _Model(shape, layout, settings, counted or Counted(), together=True)
    pp, layers = layout.pp, shape.num_layers
    least_layers, rest = model.counted.once(("layers", pp), lambda: np.divmod(layers, pp))
    first_larger = (pp - rest) // 2

    def total(stage: Size, first: bool = False, last: bool = False) -> Size:
        # where all layers mix tokens alike, how many there are is all that counts
        start = stage * least_layers + np.clip(stage - first_larger, 0, rest) if several else 0
        stop = start + least_layers + ((first_larger <= stage) & (stage < first_larger + rest))
        groups, moments = _stage_groups(model, stage, first, last, tuple(kinds_among(shape, start, stop, first)))
        return sum(groups.values()) + largest(sum(moment.values()) for moment in moments.values())

    several = len(trained_attentions(shape)) > 1
    found: Size = total(0, True, pp == 1)
    others: list[tuple[Size, ...]] = [(pp - 1, False, True)] if pp > 1 else []
    if several:  # any stage may have most layers of the heaviest kind
        others += [(stage,) for stage in range(1, pp - 1)]
    elif pp > 2:
        # of the stages between, the first with more layers and the first with fewer have most in flight of their kind
        others += [(1,), (np.clip(first_larger, 1, pp - 2),)]
    for stage in others:
        if not anywhere(found <= limit):
            break
        found = np.maximum(found, total(*stage))
    return found


def _stage_groups(
    model: _Model, stage: Size, first: bool, last: bool, held: tuple[tuple[LayerKind, Size], ...]
) -> tuple[dict[str, Size], dict[str, dict[str, Size]]]:
    """Bytes of a stage that stand through a step, by group, and what each moment adds, by moment and group."""
    architecture, layout, scheme = model.architecture, model.layout, model.scheme
    layers = [(n, model.layer(kind)) for kind, n in held if anywhere(n)]
    embedding = model.vocab_rows * architecture.d_model
    groups = _states(model, layers, first, last, held)
    if last and layout.splits_sequence and scheme.fused_gradients:
        # the gathered input of the output head (megatron/core/utils.py, GlobalMemoryBuffer)
        groups["buffers"] = groups["buffers"] + 2 * model.tokens.full * architecture.d_model

    if layout.recompute == "full":  # of every so many layers the input alone, which all kinds have alike
        kept, _ = layers[0][1].kept_and_recomputed(layout, sum(n for n, _ in layers))
    else:
        kept = sum(layer.kept_and_recomputed(layout, n)[0] for n, layer in layers)
    transient = largest(
        where(n > 0, layer.transient + layer.kept_and_recomputed(layout, n)[1], 0.0) for n, layer in layers
    )
    flying = layout.in_flight(stage, model.settings.num_micro_batches)
    hidden = 2 * model.tokens.split * architecture.d_model
    moments = {"layer": {"activations": flying * kept, "transient": transient}}
    if last:
        rows = model.tokens.full
        logits = rows * model.vocab_rows * (2 if model.settings.fused_cross_entropy else 6)
        # input and output of the final norm; gradient of the latter, whole before tp sums it
        whole = 2 * rows * architecture.d_model
        summed = hidden if layout.splits_sequence else 0
        moments["logits"] = {"activations": flying * kept + 2 * hidden, "logits": logits, "transient": whole + summed}
    if first and scheme.fused_gradients:
        moments["embedding"] = {"activations": largest((flying - 1, 0)) * kept, "transient": 2 * embedding + hidden}
    return groups, moments


def _states(
    model: _Model,
    layers: list[tuple[Size, _Layer]],
    first: bool,
    last: bool,
    held: tuple[tuple[LayerKind, Size], ...],
) -> dict[str, Size]:
    """`_state_groups`, counted once for stages of one architecture that are alike."""
    if any(isinstance(n, np.ndarray) for _, n in held):
        return _state_groups(model, layers, first, last)
    layout = model.layout
    key = (layout.tp, layout.cp, layout.dp, layout.ep, layout.etp, first, last, held)
    if key not in model.counted.states:
        model.counted.states[key] = _state_groups(model, layers, first, last)
    return model.counted.states[key].copy()


def _state_groups(model: _Model, layers: list[tuple[Size, _Layer]], first: bool, last: bool) -> dict[str, Size]:
    """Weights, gradients, optimizer state and standing buffers of a stage; the other groups are 0."""
    architecture, layout, scheme = model.architecture, model.layout, model.scheme
    embedding = model.vocab_rows * architecture.d_model
    # A tied embedding has its own copy on the last stage of a pipeline.
    tables = int(first) + int(last and not (architecture.tied_embeddings and layout.pp == 1))
    matrices = sum(n * layer.matrices for n, layer in layers)
    experts = sum(n * layer.experts for n, layer in layers)
    vectors = sum(n * layer.vectors for n, layer in layers) + tables * embedding
    vectors = vectors + architecture.num_final_norms * architecture.d_model * last

    groups: dict[str, Size] = dict.fromkeys(TRAINING_GROUPS, 0.0)
    replicas = layout.dp * layout.cp
    for params, copies, vector in (
        (matrices, replicas, False),
        (experts, layout.expert_dp, False),
        (vectors, replicas, True),
    ):
        if model.together:
            groups["weights"] = groups["weights"] + params * sum(
                scheme.state_bytes(1.0, copies, vector=vector).values()
            )
            continue
        for name, size in scheme.state_bytes(params, copies, vector=vector).items():
            groups[name] = groups[name] + size
    if scheme.gathered_blocks:
        blocks = largest([where(n > 0, layer.params, 0.0) for n, layer in layers] + [embedding] * tables)
        groups["buffers"] = groups["buffers"] + 2 * scheme.gathered_blocks * blocks
    groups["buffers"] = groups["buffers"] + _standing_buffers(model, layers, last)
    return groups


def _standing_buffers(model: _Model, layers: list[tuple[Size, _Layer]], last: bool) -> Size:
    """Buffers that live through training, whatever the micro-batch [bytes].

    Workspaces of matrix products. With gradients fused into products, one bf16 placeholder for each distinct shape of
    weight, the output head's among them (transformer_engine/pytorch/module/base.py, get_dummy_wgrad;
    megatron/core/tensor_parallel/layers.py).
    """
    size: Size = _WORKSPACE
    if not model.scheme.fused_gradients:
        return size
    # a first stage may have a dense layer alone
    has_experts = largest(where((n > 0) & (layer.experts > 0), 1, 0) for n, layer in layers)
    size += _WORKSPACE * (1 + _GROUPED_STREAMS * has_experts)

    def placeholders() -> Size:
        shapes = [(n > 0, *shape) for n, layer in layers for shape in layer.shapes]
        if last:
            shapes.append((True, model.vocab_rows, model.architecture.d_model))
        return 2 * _distinct(shapes)

    if not all(np.all(n > 0) for n, _ in layers):
        return size + placeholders()
    kinds = tuple(layer.kind for _, layer in layers)
    return size + model.counted.once(("placeholders", model.layout.tp, model.layout.etp, last, kinds), placeholders)


def _distinct(shapes: list[tuple[Size, Size, Size]]) -> Size:
    """Sum of rows * columns over the distinct (rows, columns) of (whether there, rows, columns)."""
    if not any(isinstance(x, np.ndarray) for shape in shapes for x in shape):
        return sum(rows * columns for rows, columns in {shape[1:] for shape in shapes if shape[0]})
    total: Size = 0.0
    for i, (there, rows, columns) in enumerate(shapes):
        new = there
        for other, r, c in shapes[:i]:
            new = new & np.logical_not(other & (r == rows) & (c == columns))
        total = total + new * (rows * columns)
    return total
