"""The MoE that a dense model becomes: experts that are copies of its feed-forward block, or parts of copies.

Sparse upcycling (Komatsuzaki et al. 2022, arXiv 2212.05055): every block becomes copies of itself behind a new router;
attention, norms and embeddings stay. With a granularity g each copy is cut into g experts of d_ff/g (virtual groups: He
et al. 2024, arXiv 2410.07524), so that the g experts of one copy are the block again. A shared expert is one more copy
that every token passes through.
"""

from __future__ import annotations

import dataclasses

from moeplan.architecture.shape import Architecture
from moeplan.errors import UsageError


def upcycled_shape(
    dense: Architecture, experts: int = 8, top_k: int | None = None, granularity: int = 1, *, shared: bool = False
) -> Architecture:
    """The MoE with `experts` copies of each block, each cut into `granularity` experts, of which `top_k` are active.

    `top_k` counts experts, not copies; by default those of two copies. Every layer gets experts. Raises `UsageError`
    for a model that has experts, and for numbers that make no such MoE.
    """
    if not dense.is_dense:
        raise UsageError(
            f"the model has {dense.num_experts} experts a layer: it is a MoE already, and only a dense one is upcycled"
        )
    for name, value, least in (("experts", experts, 2), ("granularity", granularity, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 1024:
            raise UsageError(f"{name} {value!r} must be a whole number from {least} to 1024")
    if dense.d_ff % granularity:
        raise UsageError(f"granularity {granularity} must divide the block's width {dense.d_ff}")
    active = 2 * granularity if top_k is None else top_k
    if isinstance(active, bool) or not isinstance(active, int) or not 1 <= active <= experts * granularity:
        raise UsageError(f"top_k {active!r} must be a whole number from 1 to {experts * granularity}, all experts")
    if active % granularity:
        raise UsageError(
            f"top_k {active} must be a multiple of granularity {granularity}, so that parts of a block stay together"
        )
    return dataclasses.replace(
        dense,
        num_experts=experts * granularity,
        num_active_experts=active,
        d_expert=dense.d_ff // granularity,
        num_shared_experts=int(shared),
        d_shared_expert=dense.d_ff if shared else 0,
        num_dense_layers=0,
        moe_layer_pattern=None,
        d_ff=0,
    )
