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

import functools
import math
import operator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moeplan.architecture.counting import Shape, Size
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.activations import tokens_of
from moeplan.cost.training.kinds import LayerKind, kinds_among, kinds_by_stage, layer_kinds, trained_attentions
from moeplan.cost.training.layer_memory import Counted, LayerMemory, layer_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.states import Scheme, load_scheme
from moeplan.numerics.elementwise import anywhere, largest, where

TRAINING_GROUPS = ("weights", "gradients", "optimizer", "buffers", "activations", "logits", "transient")
"""The groups whose sum is the peak of a stage."""

_STATES = ("weights", "gradients", "optimizer")
_WORKSPACE = 32 * 2**20
"""cuBLAS workspace on Hopper and later: PyTorch CUDABlas.cpp and TransformerEngine get_cublas_workspace_size_bytes."""
_GROUPED_STREAMS = 4
"""Streams, each with a workspace, of TransformerEngine's grouped products (get_num_cublas_streams)."""
_MEGATRON_VOCAB_MULTIPLE = 128
"""Megatron-LM pads the vocabulary to a multiple of this times tp (--make-vocab-size-divisible-by)."""


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
    """What the stages of a layout share."""

    def __init__(
        self, shape: Shape, layout: Layout, settings: TrainingSettings, counted: Counted, *, together: bool = False
    ) -> None:
        self.architecture, self.layout, self.settings, self.counted = shape, layout, settings, counted
        self.together = together  # whether weights, gradients and optimizer state need not be told apart
        self.scheme: Scheme = load_scheme(settings.optimizer)
        self.full_tokens, self.split_tokens = tokens_of(layout, settings.seq_len)
        multiple = layout.tp * (_MEGATRON_VOCAB_MULTIPLE if self.scheme.fused_gradients else 1)
        self.vocab_rows = -(-shape.vocab_size // multiple) * multiple // layout.tp

    def layer(self, kind: LayerKind) -> LayerMemory:
        """One layer of a kind."""
        return layer_memory(self.architecture, self.layout, kind, self.settings, self.counted)


def _stage_memory(model: _Model, stage: int, layers: Layers) -> StageMemory:
    groups, moments = _stage_groups(model, stage, stage == 0, stage == model.layout.pp - 1, layers, layers)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    return StageMemory(stage, dict.fromkeys(TRAINING_GROUPS, 0.0) | groups | moments[moment], moment)


def training_bytes(
    shape: Shape,
    layout: Layout,
    settings: TrainingSettings | None = None,
    counted: Counted | None = None,
    *,
    limit: float = math.inf,
) -> Size:
    """`TrainingMemory.total` of many architectures under one layout [bytes]; of those that may not have it, anything.

    `shape` is a grid with int64 arrays, as in `counting`, whose first layers alone may be dense; layers are split
    evenly (`Layout.chunks`), without virtual stages. Where the first stages show that none stays within `limit`, the
    others are not asked.
    """
    model = _Model(shape, layout, settings or TrainingSettings(), counted or Counted(), together=True)
    pp = layout.pp
    found: Size = _bytes_of_stages(model, "first")
    for stages in ("between", "last"):
        if (pp > 2 or (pp > 1 and stages == "last")) and anywhere(found <= limit):
            found = np.maximum(found, _bytes_of_stages(model, stages))
    return found


def _bytes_of_stages(model: _Model, stages: str) -> Size:
    """The most bytes of any of the "first", "last" or stages "between" of each architecture."""
    shape, pp = model.architecture, model.layout.pp
    place, held = model.counted.once(("stages", pp, stages), lambda: _grid_stages(shape, pp, stages))
    groups, moments = _stage_groups(model, place, stages == "first", stages == "last" or pp == 1, held, (pp, stages))
    found = _total(groups) + largest(_total(moment) for moment in moments.values())
    return found.max(axis=0) if stages == "between" else found


def _total(groups: dict[str, Size]) -> Size:
    """Bytes of all groups, in their order; no 0 is added to arrays before."""
    return functools.reduce(operator.add, groups.values())


def _grid_stages(shape: Shape, pp: int, stages: str) -> tuple[Size, tuple[tuple[LayerKind, Size], ...]]:
    """Places of the "first", the "last" or the stages "between" (in rows) of a grid, and their layers by kind."""
    layers = np.maximum(shape.num_layers, pp)  # a layout of more stages suits no architecture
    least_layers, rest = np.divmod(layers, pp)
    first_larger = (pp - rest) // 2
    several = len(trained_attentions(shape)) > 1
    stage: Size = 0 if stages == "first" else pp - 1
    if stages == "between" and several:  # any stage may have most layers of the heaviest kind
        stage = np.arange(1, pp - 1)[:, None]
    elif stages == "between":
        # the first with more layers and the first with fewer have most in flight of their kind
        stage = np.stack(np.broadcast_arrays(1, np.clip(first_larger, 1, pp - 2)))
    # where all layers mix tokens alike, how many there are is all that counts
    start = stage * least_layers + np.clip(stage - first_larger, 0, rest) if several else 0
    stop = start + least_layers + ((first_larger <= stage) & (stage < first_larger + rest))
    held = kinds_among(shape, start, stop, stages == "first")
    return stage, tuple((kind, n) for kind, n in held if anywhere(n))


def _stage_groups(
    model: _Model, stage: Size, first: bool, last: bool, held: tuple[tuple[LayerKind, Size], ...], alike: object
) -> tuple[dict[str, Size], dict[str, dict[str, Size]]]:
    """Bytes of a stage that stand through a step, by group, and what each moment adds, by moment and group.

    `alike` tells stages apart, as far as their layers do, under layouts that spread params alike.
    """
    architecture, layout, scheme = model.architecture, model.layout, model.scheme
    layers = [(n, model.layer(kind)) for kind, n in held]
    embedding = model.vocab_rows * architecture.d_model
    spread = layout.tp, layout.cp, layout.dp, layout.ep, layout.etp, first, last, alike
    groups: dict[str, Size] = model.counted.once(
        ("state", *spread), lambda: _state_groups(model, layers, first, last, alike)
    ).copy()
    if last and layout.splits_sequence and scheme.fused_gradients:
        # the gathered input of the output head (megatron/core/utils.py, GlobalMemoryBuffer)
        groups["buffers"] = groups["buffers"] + 2 * model.full_tokens * architecture.d_model

    if layout.recompute == "full":  # of every so many layers the input alone, which all kinds have alike
        kept, _ = layers[0][1].kept_and_recomputed(layout, sum(n for n, _ in layers))
    else:
        kept = sum(layer.kept_and_recomputed(layout, n)[0] for n, layer in layers)
    transient = largest(
        where(n > 0, layer.transient + layer.kept_and_recomputed(layout, n)[1], 0.0) for n, layer in layers
    )
    flying = layout.in_flight(stage, model.settings.num_micro_batches)
    active = flying * kept
    hidden = 2 * model.split_tokens * architecture.d_model
    moments = {"layer": {"activations": active, "transient": transient}}
    if last:
        rows = model.full_tokens
        logits = rows * model.vocab_rows * (2 if model.settings.fused_cross_entropy else 6)
        # input and output of the final norm; gradient of the latter, whole before tp sums it
        whole = 2 * rows * architecture.d_model
        summed = hidden if layout.splits_sequence else 0
        moments["logits"] = {"activations": active + 2 * hidden, "logits": logits, "transient": whole + summed}
    if first and scheme.fused_gradients:
        moments["embedding"] = {"activations": largest((flying - 1, 0)) * kept, "transient": 2 * embedding + hidden}
    return groups, moments


def _state_groups(
    model: _Model, layers: list[tuple[Size, LayerMemory]], first: bool, last: bool, alike: object
) -> dict[str, Size]:
    """Weights, gradients, optimizer state and standing buffers of a stage."""
    architecture, layout, scheme = model.architecture, model.layout, model.scheme
    embedding = model.vocab_rows * architecture.d_model
    # A tied embedding has its own copy on the last stage of a pipeline.
    tables = int(first) + int(last and not (architecture.tied_embeddings and layout.pp == 1))
    matrices = sum(n * layer.matrices for n, layer in layers)
    experts = sum(n * layer.experts for n, layer in layers)
    vectors = sum(n * layer.vectors for n, layer in layers) + tables * embedding
    vectors = vectors + architecture.num_final_norms * architecture.d_model * last

    groups: dict[str, Size] = {"weights": 0.0} if model.together else dict.fromkeys(_STATES, 0.0)
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
    buffers = model.counted.once(
        ("buffers", layout.tp, layout.etp, last, alike), lambda: _standing_buffers(model, layers, last)
    )
    if scheme.gathered_blocks:
        blocks = largest([where(n > 0, layer.params, 0.0) for n, layer in layers] + [embedding] * tables)
        buffers = 2 * scheme.gathered_blocks * blocks + buffers
    return groups | {"buffers": buffers}


def _standing_buffers(model: _Model, layers: list[tuple[Size, LayerMemory]], last: bool) -> Size:
    """Buffers that live through training, whatever the micro-batch [bytes].

    Workspaces of matrix products. With gradients fused into products, one bf16 placeholder for each distinct shape of
    weight, the output head's among them (transformer_engine/pytorch/module/base.py, get_dummy_wgrad;
    megatron/core/tensor_parallel/layers.py).
    """
    size: Size = float(_WORKSPACE)
    if not model.scheme.fused_gradients:
        return size
    # a first stage may have a dense layer alone
    has_experts = largest(where((n > 0) & (layer.experts > 0), 1, 0) for n, layer in layers)
    size += _WORKSPACE * (1 + _GROUPED_STREAMS * has_experts)

    if all(np.all(n > 0) for n, _ in layers):
        return size + _placeholders(model, [layer for _, layer in layers], last)
    # a stage has these of the kinds of layers, by the bits of a number
    there = sum(where(n > 0, 2**place, 0) for place, (n, _) in enumerate(layers))
    found: Size = 0.0
    for some in np.unique(there).tolist():
        present = [layer for place, (_, layer) in enumerate(layers) if some & 2**place]
        found = where(there == some, _placeholders(model, present, last), found)
    return size + found


def _placeholders(model: _Model, layers: list[LayerMemory], last: bool) -> Size:
    """Placeholders of a stage that has layers of all these kinds [bytes]."""
    shapes = [shape for layer in layers for shape in layer.shapes]
    if last:
        shapes.append((model.vocab_rows, model.architecture.d_model))
    key = "placeholders", model.layout.tp, model.layout.etp, last, *(layer.kind for layer in layers)
    return model.counted.once(key, lambda: 2 * _distinct(shapes))


def _distinct(shapes: list[tuple[Size, Size]]) -> Size:
    """Sum of rows * columns over the distinct (rows, columns)."""
    if not any(isinstance(x, np.ndarray) for shape in shapes for x in shape):
        return sum(rows * columns for rows, columns in set(shapes))
    total: Size = 0.0
    for i, (rows, columns) in enumerate(shapes):
        known: Size = False
        for r, c in shapes[:i]:
            known = known | ((r == rows) & (c == columns))
        total = total + np.logical_not(known) * (rows * columns)
    return total
