"""How training is spread over GPUs: `Layout`, the rules it must obey, and what each pipeline stage holds.

A layout has `tp * cp * dp * pp` GPUs. Attention and dense parts are spread over tp (within a layer), cp (along the
sequence) and dp (over sequences); experts over ep (whole experts) and etp (within an expert) of the same `tp * cp * dp`
GPUs of a stage, each `expert_dp` times (MoE parallel folding, arXiv 2504.14960, section 3.2).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, get_args

from moeplan.architecture.counting import Shape, Size
from moeplan.architecture.shape import Architecture
from moeplan.cost.training.kinds import trained_attentions
from moeplan.errors import InfeasibleError, UsageError
from moeplan.numerics.elementwise import least
from moeplan.texts import counted

Recompute = Literal["none", "selective", "full"]
"""Activations computed again in the backward pass instead of kept; see `moeplan.cost.training.activations`."""

_DEGREES = ("tp", "pp", "ep", "etp", "cp", "dp")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How one training run is spread over GPUs. Raises `UsageError` for numbers that cannot be."""

    tp: int = 1
    """Tensor parallelism: GPUs that share each attention and dense matrix."""
    pp: int = 1
    """Pipeline stages."""
    ep: int = 1
    """Expert parallelism: GPUs over which the routed experts of a layer are spread whole."""
    etp: int = 1
    """Expert tensor parallelism: GPUs that share each routed expert."""
    cp: int = 1
    """Context parallelism: GPUs that share each sequence."""
    dp: int = 1
    """Data parallelism: replicas of the dense parts that see different sequences."""
    micro_batch: int = 1
    """Sequences of one micro-batch."""
    sequence_parallel: bool = True
    """Whether norms and residuals are split along the sequence over tp (arXiv 2205.05198); without effect at tp 1."""
    recompute: Recompute = "none"
    """Activations that the backward pass computes again."""
    recompute_layers: int = 1
    """Layers that full recomputation runs again at a time, keeping one input for all of them."""
    virtual_stages: int = 1
    """Chunks of layers a stage holds (interleaved schedule, arXiv 2104.04473); 1 is plain 1F1B."""
    stage_layers: tuple[int, ...] | None = None
    """Layers of each chunk, in model order, pp * virtual_stages of them; None splits evenly (`chunks`)."""

    def __post_init__(self) -> None:
        for name in (*_DEGREES, "micro_batch", "recompute_layers", "virtual_stages"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} {value!r} must be a whole number of at least 1")
        if self.recompute not in get_args(Recompute):
            raise UsageError(f"recompute {self.recompute!r} must be one of {', '.join(get_args(Recompute))}")
        if self.stage_layers is not None:
            object.__setattr__(self, "stage_layers", tuple(self.stage_layers))
            chunks = self.pp * self.virtual_stages
            if len(self.stage_layers or ()) != chunks or any(n < 1 for n in self.stage_layers or ()):
                raise UsageError(f"stage_layers {self.stage_layers!r} must be {chunks} numbers of at least 1")

    @property
    def num_gpus(self) -> int:
        """GPUs in all: tp * cp * dp * pp."""
        return self.tp * self.cp * self.dp * self.pp

    @property
    def expert_dp(self) -> int:
        """Replicas of each routed expert: tp * cp * dp / (ep * etp)."""
        return self.tp * self.cp * self.dp // (self.ep * self.etp)

    @property
    def splits_sequence(self) -> bool:
        """Whether norms and residuals are split over tp."""
        return self.sequence_parallel and self.tp > 1

    @property
    def sequence_pieces(self) -> int:
        """Equal pieces that a sequence is cut into: 2*cp, so that causal work is even, times tp where it splits."""
        return (2 * self.cp if self.cp > 1 else 1) * (self.tp if self.splits_sequence else 1)

    @property
    def min_gpus(self) -> int:
        """Fewest GPUs that hold one copy of the model: pp * max(tp * cp, ep * etp)."""
        return self.pp * max(self.tp * self.cp, self.ep * self.etp)

    def __str__(self) -> str:
        text = " ".join(f"{name}{getattr(self, name)}" for name in _DEGREES)
        text += f" micro-batch {self.micro_batch}"
        if self.virtual_stages > 1:
            text += f" virtual {self.virtual_stages}"
        return text if self.recompute == "none" else f"{text} recompute {self.recompute}"

    def chunks(self, num_layers: int) -> tuple[int, ...]:
        """Layers of each chunk in model order.

        Without `stage_layers` every chunk gets num_layers // n; of the rest, one layer each goes to the chunks in the
        middle, as the first also has the embedding and the last the logits.
        """
        if self.stage_layers is not None:
            return self.stage_layers
        n = self.pp * self.virtual_stages
        least, rest = divmod(num_layers, n)
        first = (n - rest) // 2
        return tuple(least + (first <= i < first + rest) for i in range(n))

    def stages(self, architecture: Architecture) -> tuple[tuple[int, int], ...]:
        """(dense layers, MoE layers) of each pipeline stage; chunk i is on stage i mod pp."""
        return _stages(
            architecture.moe_layer_pattern,
            architecture.num_dense_layers,
            architecture.num_layers,
            self.chunks(architecture.num_layers),
            self.pp,
        )

    def kinds_of_stages(self, architecture: Architecture) -> tuple[tuple[int, int, int], ...]:
        """(stage, dense layers, MoE layers) of the first stage of each kind.

        Stages of a kind have the same layers and are both or neither the first, and both or neither the last. The
        first of them has most micro-batches in flight (`in_flight`), and every other cost in common.
        """
        return _kinds(self.stages(architecture))

    def layer_key(self, moe: bool, ep: int | None = None, micro_batch: int | None = None) -> tuple[object, ...]:
        """The degrees that decide the costs of one layer and micro-batch on one GPU: neither pp nor dp does.

        `ep` and `micro_batch` stand in place of its own.
        """
        experts = (ep or self.ep, self.etp) if moe else (1, 1)
        size = micro_batch or self.micro_batch
        return moe, self.tp, self.cp, *experts, size, self.sequence_parallel, self.recompute

    def in_flight(self, stage: Size, num_micro_batches: int | None = None) -> Size:
        """Micro-batches whose activations stage `stage` (from 0) holds at its peak.

        1F1B (PipeDream-flush, arXiv 2104.04473, section 2.2.1): pp - stage. Interleaved with v chunks a stage:
        (2*(pp - stage - 1) + (v - 1)*pp + 1) / v, which on the first stage is pp*(1 + (pp - 1)/(pp*v)) (arXiv
        2205.05198, section 4.2.3). Never more than there are micro-batches in a step.
        """
        v, left = self.virtual_stages, self.pp - stage - 1
        count = left + 1.0 if v == 1 or self.pp == 1 else (2 * left + (v - 1) * self.pp + 1) / v
        return count if num_micro_batches is None else least(count, float(num_micro_batches))

    def problems(self, architecture: Architecture, seq_len: int) -> list[str]:
        """The rules that this layout breaks for an architecture, one sentence each; none if it can run."""
        broken: list[str] = []

        def divides(degree: str, name: str, size: int) -> None:
            value = getattr(self, degree)
            if size % value:
                broken.append(f"{degree} {value} must divide {name} {size}, as {_nearest(size, value)}")

        divides("tp", "num_heads", architecture.num_heads)
        broken += filter(None, (each.split_problem(self.tp) for each in trained_attentions(architecture)))
        for name in ("d_ff", "d_dense_residual"):
            divides("tp", name, getattr(architecture, name))
        if architecture.is_dense:
            if self.ep * self.etp > 1:
                broken.append(f"ep {self.ep} and etp {self.etp} must be 1 for a model without experts")
        else:
            shared = architecture.num_shared_experts * architecture.d_shared_expert
            divides("tp", "the shared experts' width", shared)
            divides("ep", "num_experts", architecture.num_experts)
            divides("etp", "d_expert", architecture.d_expert)
            if self.tp > 1 and not self.sequence_parallel:
                broken.append(f"tp {self.tp} needs sequence_parallel for a model with experts")
        if self.tp * self.cp * self.dp % (self.ep * self.etp):
            broken.append(
                f"ep * etp = {self.ep * self.etp} must divide tp * cp * dp = {self.tp * self.cp * self.dp}; "
                f"this model copy needs at least {counted(self.min_gpus, 'GPU(s)')}"
            )
        chunks = self.pp * self.virtual_stages
        if chunks > architecture.num_layers:
            broken.append(
                f"pp {self.pp} times virtual_stages {self.virtual_stages} exceeds {architecture.num_layers} layers"
            )
        elif sum(self.chunks(architecture.num_layers)) != architecture.num_layers:
            broken.append(f"stage_layers {self.stage_layers} must add up to num_layers {architecture.num_layers}")
        if self.virtual_stages > 1 and self.pp == 1:
            broken.append(f"virtual_stages {self.virtual_stages} needs pp above 1")
        pieces = self.sequence_pieces
        if seq_len % pieces:
            broken.append(f"seq_len {seq_len} must be a multiple of {pieces} for cp {self.cp} and tp {self.tp}")
        return broken

    def suits(self, shape: Shape, seq_len: int) -> Size:
        """Whether `problems` has none for each architecture of a grid, all of them with experts."""
        tokens = seq_len % self.sequence_pieces == 0 and (self.tp == 1 or self.sequence_parallel)
        grid = self.tp * self.cp * self.dp % (self.ep * self.etp) == 0
        chunks = self.pp * self.virtual_stages
        stages = (chunks <= shape.num_layers) & (self.virtual_stages == 1 or self.pp > 1)
        suits = stages & (tokens and grid)
        if self.tp > 1:
            suits = suits & (shape.num_heads % self.tp == 0)
            for attention in trained_attentions(shape):
                suits = suits & attention.splits(self.tp)
            for width in (shape.d_ff, shape.d_dense_residual, shape.num_shared_experts * shape.d_shared_expert):
                suits = suits & (width % self.tp == 0)
        for degree, size in ((self.ep, shape.num_experts), (self.etp, shape.d_expert)):
            suits = suits & (size % degree == 0) if degree > 1 else suits
        return suits

    def check(self, architecture: Architecture, seq_len: int) -> None:
        """Raise `InfeasibleError` with the first rule that this layout breaks."""
        broken = self.problems(architecture, seq_len)
        if broken:
            raise InfeasibleError(f"layout {self}: {broken[0]}")


@functools.lru_cache(maxsize=256)
def _nearest(size: int, degree: int) -> str:
    """The divisors of a size that are next to a degree which is none, in words."""
    below = next(each for each in range(min(degree, size), 0, -1) if size % each == 0)
    above = next((each for each in range(degree, size + 1) if size % each == 0), None)
    return f"{below} does" if above is None else f"{below} and {above} do"


# A search asks for the same stages thousands of times.
@functools.lru_cache(maxsize=256)
def _stages(
    pattern: tuple[bool, ...] | None, num_dense: int, num_layers: int, chunks: tuple[int, ...], pp: int
) -> tuple[tuple[int, int], ...]:
    has_experts = pattern or [i >= num_dense for i in range(num_layers)]
    counts = [[0, 0] for _ in range(pp)]
    start = 0
    for i, layers in enumerate(chunks):
        moe = sum(has_experts[start : start + layers])
        counts[i % pp][0] += layers - moe
        counts[i % pp][1] += moe
        start += layers
    return tuple((dense, moe) for dense, moe in counts)


@functools.lru_cache(maxsize=256)
def _kinds(stages: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int, int], ...]:
    first: dict[tuple[bool, bool, int, int], int] = {}
    for i, (dense, moe) in enumerate(stages):
        first.setdefault((i == 0, i == len(stages) - 1, dense, moe), i)
    return tuple((i, dense, moe) for (_, _, dense, moe), i in first.items())


_WRITTEN = (*_DEGREES, "virtual_stages", "micro_batch", "recompute")
_ALIASES = {"vp": "virtual_stages", "mbs": "micro_batch"}


def read_degrees(text: str) -> dict[str, Any]:
    """Read "tp=2,pp=4,recompute=full" as what it names; vp and mbs stand for virtual_stages and micro_batch.

    Raises `UsageError` for anything else.
    """
    values: dict[str, Any] = {}
    for part in filter(None, text.replace(" ", ",").split(",")):
        name, equals, value = part.partition("=")
        name = _ALIASES.get(name, name)
        if name not in _WRITTEN or not equals or name in values:
            known = ", ".join(_WRITTEN)
            raise UsageError(f"layout {text!r} must name each of {known} at most once, as in tp=2,pp=4,dp=8")
        values[name] = int(value) if value.isascii() and value.isdigit() else value
    Layout(**values)
    return values


def read_layout(text: str, num_gpus: int | None = None) -> Layout:
    """Read a layout; what `read_degrees` does not find is 1.

    With `num_gpus`, dp fills them unless it is given. Raises `UsageError` for anything else, and `InfeasibleError` for
    degrees that do not divide the GPUs.
    """
    values = read_degrees(text)
    if num_gpus is None:
        return Layout(**values)
    copies = Layout(**{**values, "dp": 1}).num_gpus
    if "dp" not in values and num_gpus % copies == 0:
        values["dp"] = num_gpus // copies
    layout = Layout(**values)
    if layout.num_gpus != num_gpus:
        raise InfeasibleError(
            f"layout {text!r} takes a multiple of {counted(copies, 'GPU(s)')} (tp*cp*pp times dp), and there are "
            f"{num_gpus}; give degrees whose product divides them, or {max(1, num_gpus // copies) * copies} GPUs"
        )
    return layout
