"""Weights, gradients and optimizer state [bytes per param] under the schemes that trainers use.

A scheme says how many bytes of each a param has, and which of the three are split over its replicas: over dp * cp GPUs
for the dense parts, over `expert_dp` for routed experts. `state_bytes` is exact in the params of one GPU; buffers and
rounding are not in it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field

from moeplan.errors import UsageError


@dataclass(frozen=True)
class Scheme:
    """Bytes per param of weights, gradients and optimizer state, and what is split over replicas."""

    name: str
    """Name to choose it by."""
    weights: float
    """Bytes of a weight."""
    gradients: float
    """Bytes of a gradient that lives through the step."""
    optimizer: float
    """Bytes of optimizer state of a param: fp32 master weight and moments."""
    source: str
    """Where the numbers are from."""
    split: frozenset[str] = field(default=frozenset())
    """Which of weights, gradients, optimizer are split over the replicas."""
    vector_optimizer: float | None = None
    """Bytes of optimizer state of embeddings, output head, router and norms, where these differ."""
    gathered_blocks: int = 0
    """Blocks whose bf16 weights are whole on a GPU at a time, where weights are split."""
    fused_gradients: bool = False
    """Whether matrix products add to fp32 gradients directly, through TransformerEngine's placeholder buffers."""

    def state_bytes(self, params: float, replicas: int, *, vector: bool = False) -> dict[str, float]:
        """Weights, gradients and optimizer [bytes] of `params` params that have `replicas` replicas.

        `vector`: the params are embeddings, output head, router or norms.
        """
        optimizer = self.optimizer if not vector or self.vector_optimizer is None else self.vector_optimizer
        sizes = {"weights": self.weights, "gradients": self.gradients, "optimizer": optimizer}
        return {name: params * size / (replicas if name in self.split else 1) for name, size in sizes.items()}


_ZERO = "Rajbhandari et al., ZeRO, arXiv 1910.02054, section 3.1 and figure 1"
_MEGATRON = "Megatron-Core user guide, Distributed Optimizer: bf16 params, fp32 gradients"
_DEEPSPEED = "DeepSpeed runtime/zero estimate_zero{2,3}_model_states_mem_needs"
_OPTIMIZER, _STATES = frozenset({"optimizer"}), frozenset({"weights", "gradients", "optimizer"})

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("adam", 2, 2, 12, f"{_ZERO}: 16 bytes"),
        Scheme("adam-fp32-gradients", 2, 4, 12, f"{_MEGATRON}, not distributed: 18 bytes", fused_gradients=True),
        Scheme("megatron", 2, 4, 12, f"{_MEGATRON}: 6 + 12/d bytes", _OPTIMIZER, fused_gradients=True),
        Scheme("zero1", 2, 2, 12, f"{_ZERO}: 4 + 12/N bytes", _OPTIMIZER),
        Scheme("zero1-fp32-gradients", 2, 4, 12, f"{_ZERO}, with fp32 gradients: 6 + 12/N bytes", _OPTIMIZER),
        Scheme("zero2", 2, 2, 12, f"{_ZERO}: 2 + 14/N bytes", frozenset({"gradients", "optimizer"})),
        Scheme("zero3", 2, 2, 12, f"{_ZERO}: 16/N bytes; section 7.2.2 gathers a layer", _STATES, gathered_blocks=1),
        Scheme("deepspeed-zero2", 2, 2, 16, f"{_DEEPSPEED}: 2 + 18/N bytes", frozenset({"gradients", "optimizer"})),
        Scheme(
            "deepspeed-zero3",
            2,
            0,
            16,
            f"{_DEEPSPEED}: 18/N + 4 a param of the largest layer",
            _STATES,
            gathered_blocks=2,
        ),
        Scheme(
            "fsdp2",
            4,
            4,
            8,
            "PyTorch fully_shard, fp32 params: (4 + 4 + 8)/N; one block in use and one prefetched, in bf16",
            _STATES,
            gathered_blocks=2,
        ),
        Scheme(
            "adam8bit",
            2,
            2,
            4 + 2 + 2 * 4 / 2048,
            "Dettmers et al., arXiv 2110.02861, section 2: fp32 master, 8-bit moments, a fp32 scale each 2048; "
            "section 2.3: 32-bit state for embeddings",
            vector_optimizer=12,
        ),
        Scheme(
            "muon",
            2,
            4,
            8,
            "Liu et al., Moonlight, arXiv 2502.16982, section 2.3: fp32 master and one momentum, split as in ZeRO-1; "
            "AdamW for embeddings, head and norms",
            _OPTIMIZER,
            vector_optimizer=12,
            fused_gradients=True,
        ),
    )
}
"""Every optimizer scheme by name."""


def load_scheme(name: str) -> Scheme:
    """The optimizer scheme called `name`; raises `UsageError` with the nearest names for another."""
    if name in SCHEMES:
        return SCHEMES[name]
    near = difflib.get_close_matches(name, SCHEMES, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(SCHEMES)}"
    raise UsageError(f"unknown optimizer {name!r}; {hint}")


def deepspeed_bytes(
    total_params: float,
    gpus: int,
    stage: int,
    *,
    largest_layer_params: float = 0,
    offload: str = "none",
    old: bool = False,
) -> float:
    """Model states on one GPU by DeepSpeed's own estimator [bytes], for comparison with its documentation.

    Stage 2: 2P + 18P/N (`old`, as its documentation still prints it: 4P + 16P/N), or 2P with the optimizer offloaded.
    Stage 3: 4*L + 18P/N; with the optimizer offloaded 4*L + 2P/N; with the params offloaded too, 4*L. L is the largest
    layer's params. Source: deepspeed/runtime/zero/stage_1_and_2.py and stage3.py; its "GB" are GiB.
    """
    if stage not in (2, 3) or offload not in ("none", "optimizer", "all"):
        raise UsageError(
            f"DeepSpeed stage {stage!r} with offload {offload!r}: stage 2 or 3, offload none, optimizer or all"
        )
    if stage == 2:
        if offload != "none":
            return 2 * total_params
        return 4 * total_params + 16 * total_params / gpus if old else 2 * total_params + 18 * total_params / gpus
    shares = {"none": 18, "optimizer": 2, "all": 0}
    return 4 * largest_layer_params + shares[offload] * total_params / gpus
