"""What decides the memory of training beside the architecture and the layout: `TrainingSettings`."""

from __future__ import annotations

from dataclasses import dataclass

from moeplan.cost.training.states import load_scheme
from moeplan.errors import UsageError


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
