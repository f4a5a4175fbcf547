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
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from moeplan.architecture import counting
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.activations import (
    KeptTensor,
    kept_bytes,
    kept_tensors,
    recomputed_bytes,
    tokens,
    transient_bytes,
)
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.states import Scheme, load_scheme
from moeplan.errors import UsageError

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
        stages = self.layout.stages(self.architecture)
        return tuple(_stage_memory(model, stage, *layers) for stage, layers in enumerate(stages))

    @cached_property
    def total(self) -> float:
        """Bytes a GPU must have: those of the heaviest stage."""
        return self.heaviest.total


@dataclass
class Counted:
    """Costs that layouts of one architecture under the same settings share, kept from one to the next."""

    layers: dict[tuple[object, ...], _Layer] = field(default_factory=dict)
    """Layers on one GPU by `Layout.layer_key`."""
    states: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)
    """Weights, gradients, optimizer state and buffers of a stage, by its layers and how they are spread."""


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
    stages = [_stage_memory(model, *stage) for stage in layout.kinds_of_stages(architecture)]
    heaviest = max(stages, key=lambda stage: stage.total)
    return TrainingMemory(architecture, layout, settings, heaviest)


class _Model:
    """Costs that the stages share: params, activations and buffers of one dense and one MoE layer on one GPU."""

    def __init__(
        self, architecture: Architecture, layout: Layout, settings: TrainingSettings, counted: Counted
    ) -> None:
        self.architecture, self.layout, self.settings, self.counted = architecture, layout, settings, counted
        self.scheme: Scheme = load_scheme(settings.optimizer)
        self.tokens = tokens(architecture, layout, settings.seq_len, settings.imbalance)
        multiple = layout.tp * (_MEGATRON_VOCAB_MULTIPLE if self.scheme.fused_gradients else 1)
        self.vocab_rows = -(-architecture.vocab_size // multiple) * multiple // layout.tp
        self.layers = {moe: self._layer(moe) for moe in (False, True)}

    def _layer(self, moe: bool) -> _Layer | None:
        a = self.architecture
        if (a.num_moe_layers if moe else a.num_layers - a.num_moe_layers) == 0:
            return None
        key = self.layout.layer_key(moe)
        if key not in self.counted.layers:
            self.counted.layers[key] = self._count_layer(moe)
        return self.counted.layers[key]

    def _count_layer(self, moe: bool) -> _Layer:
        a, settings = self.architecture, self.settings
        tensors = kept_tensors(
            a,
            self.layout,
            settings.seq_len,
            moe,
            imbalance=settings.imbalance,
            weighted_activation=settings.weighted_activation,
        )
        matrices, experts, vectors = layer_params(a, self.layout, moe)
        return _Layer(
            matrices,
            experts,
            vectors,
            tensors,
            transient_bytes(a, self.layout, settings.seq_len, moe, tensors, settings.imbalance),
            frozenset(_weight_shapes(a, self.layout, moe)),
        )


@dataclass(frozen=True)
class _Layer:
    """One layer on one GPU: params by how they are spread and stepped, bytes kept and added, shapes of its weights."""

    matrices: float
    experts: float
    vectors: float
    tensors: list[KeptTensor]
    transient: float
    shapes: frozenset[tuple[float, float]]
    amounts: dict[tuple[int, int], tuple[float, float]] = field(default_factory=dict, compare=False)

    def kept_and_recomputed(self, layout: Layout, num_layers: int) -> tuple[float, float]:
        """Bytes that `num_layers` of it keep, and bytes that recomputation brings back; counted once."""
        key = num_layers, layout.recompute_layers
        if key not in self.amounts:
            kept = kept_bytes(self.tensors, layout, num_layers)
            self.amounts[key] = kept, recomputed_bytes(self.tensors, layout, num_layers)
        return self.amounts[key]

    @property
    def params(self) -> float:
        return self.matrices + self.experts + self.vectors


class _Share:
    """A shape as one GPU of a layout holds it: some fields have other values."""

    def __init__(self, shape: Architecture, **changed: object) -> None:
        self.__dict__.update(changed)
        self._shape = shape

    def __getattr__(self, name: str) -> object:
        return getattr(self._shape, name)


def layer_params(architecture: Architecture, layout: Layout, moe: bool) -> tuple[float, float, float]:
    """(matrices outside routed experts, routed experts, router and norms) of one layer on one GPU [params].

    tp splits attention (`Attention.on_device`) and feed-forward widths; norms and router are whole on each GPU; experts
    are split by ep and etp.
    """
    tp = layout.tp
    share = _Share(
        architecture,
        attentions=[(1, architecture.uniform_attention.on_device(tp))],
        d_shared_expert=architecture.d_shared_expert / tp,
        num_layers=1,
        num_moe_layers=int(moe),
        d_ff=architecture.d_ff // tp,
        d_dense_residual=architecture.d_dense_residual // tp,
        num_final_norms=0,
    )
    groups = counting.params_by_group(share, 0)
    experts = 0.0
    if moe:
        one = _Share(architecture, d_expert=architecture.d_expert / layout.etp)
        experts = architecture.num_experts / layout.ep * counting.expert_params(one)
    matrices = groups["attention"] + groups["dense_ffn"] + groups["shared_experts"]
    return matrices, experts, groups["router"] + groups["norms"]


def _weight_shapes(architecture: Architecture, layout: Layout, moe: bool) -> list[tuple[float, float]]:
    """(rows, columns) of every weight of one layer on one GPU that TransformerEngine multiplies by."""
    d, tp = architecture.d_model, layout.tp
    shapes = architecture.uniform_attention.on_device(tp).stored_matrices(d)
    widths = [architecture.d_ff / tp] if not moe else [architecture.d_expert / layout.etp]
    if moe:
        widths += [
            architecture.num_shared_experts * architecture.d_shared_expert / tp,
            architecture.d_dense_residual / tp,
        ]
    return shapes + [shape for width in widths if width for shape in ((2 * width, d), (d, width))]


def _stage_memory(model: _Model, stage: int, num_dense: int, num_moe: int) -> StageMemory:
    architecture, layout, scheme = model.architecture, model.layout, model.scheme
    first, last = stage == 0, stage == layout.pp - 1
    layers = [
        (n, layer) for n, layer in ((num_dense, model.layers[False]), (num_moe, model.layers[True])) if n and layer
    ]
    embedding = model.vocab_rows * architecture.d_model
    key = (layout.tp, layout.cp, layout.dp, layout.ep, layout.etp, first, last, num_dense, num_moe)
    if key not in model.counted.states:
        model.counted.states[key] = _state_groups(model, layers, first, last)
    groups = model.counted.states[key].copy()
    if last and layout.splits_sequence and scheme.fused_gradients:
        # the gathered input of the output head (megatron/core/utils.py, GlobalMemoryBuffer)
        groups["buffers"] += 2 * model.tokens.full * architecture.d_model

    num_layers = num_dense + num_moe
    if layout.recompute == "full":
        kept, _ = layers[0][1].kept_and_recomputed(layout, num_layers)
    else:
        kept = sum(layer.kept_and_recomputed(layout, n)[0] for n, layer in layers)
    transient = max(layer.transient + layer.kept_and_recomputed(layout, n)[1] for n, layer in layers)
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
        moments["embedding"] = {"activations": max(flying - 1, 0) * kept, "transient": 2 * embedding + hidden}
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    return StageMemory(stage, groups | moments[moment], moment)


def _state_groups(model: _Model, layers: list[tuple[int, _Layer]], first: bool, last: bool) -> dict[str, float]:
    """Weights, gradients, optimizer state and standing buffers of a stage; the other groups are 0."""
    architecture, layout, scheme = model.architecture, model.layout, model.scheme
    embedding = model.vocab_rows * architecture.d_model
    # A tied embedding has its own copy on the last stage of a pipeline.
    tables = int(first) + int(last and not (architecture.tied_embeddings and layout.pp == 1))
    matrices = sum(n * layer.matrices for n, layer in layers)
    experts = sum(n * layer.experts for n, layer in layers)
    vectors = sum(n * layer.vectors for n, layer in layers) + tables * embedding
    vectors += architecture.num_final_norms * architecture.d_model * last

    groups = dict.fromkeys(TRAINING_GROUPS, 0.0)
    replicas = layout.dp * layout.cp
    for params, copies, vector in (
        (matrices, replicas, False),
        (experts, layout.expert_dp, False),
        (vectors, replicas, True),
    ):
        for name, size in scheme.state_bytes(params, copies, vector=vector).items():
            groups[name] += size
    blocks = sorted([layer.params for _, layer in layers] + [embedding] * tables, reverse=True)
    if scheme.gathered_blocks:
        groups["buffers"] += 2 * scheme.gathered_blocks * blocks[0]
    groups["buffers"] += _standing_buffers(model, layers, last)
    return groups


def _standing_buffers(model: _Model, layers: list[tuple[int, _Layer]], last: bool) -> float:
    """Buffers that live through training, whatever the micro-batch [bytes].

    Workspaces of matrix products. With gradients fused into products, one bf16 placeholder for each distinct shape of
    weight, the output head's among them (transformer_engine/pytorch/module/base.py, get_dummy_wgrad;
    megatron/core/tensor_parallel/layers.py).
    """
    size: float = _WORKSPACE
    if not model.scheme.fused_gradients:
        return size
    shapes = frozenset[tuple[float, float]]().union(*(layer.shapes for _, layer in layers))
    if last:
        shapes |= {(model.vocab_rows, model.architecture.d_model)}
    has_experts = any(layer.experts for _, layer in layers)
    size += _WORKSPACE * (1 + _GROUPED_STREAMS * has_experts)
    return size + 2 * sum(rows * columns for rows, columns in shapes)
