"""From a plan to proxy models: the same experts at widths that train in seconds, and dense models beside them.

What the leverage law sees stays: activation ratio, active experts, shared ratio and granularity. Width and depth
shrink. Both arms have one rule for everything else (depth, heads, embeddings), so that experts are what differs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Annotated

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError
from moeplan.laws import load_law
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.quantities import BY_VARIABLE

ALIGNMENT = 8
"""Widths of experts are multiples of this [features]: `grouped_mm` wants rows of 16 bytes, 8 numbers of bf16."""
WIDTHS = (*range(32, 256, 16), *range(256, 512, 32), *range(512, 2049, 64))
"""Widths of proxy models [features], for those whose experts come out whole."""
GRANULARITY_TOLERANCE = 0.15
"""Relative error of the granularity that is allowed where no width keeps it."""
SIZE_STEP = 1.6
"""Two sizes of a budget are at least about this factor apart in FLOPs per token."""
NEAR_OPTIMAL = 2.0
"""FLOPs per token of the smallest MoE proxies / those of a compute-optimal model, at most, if a rounder granularity
gives them: a factor of two in size costs about 1 % of loss, and the dense arm has a size that near."""
TOKENS_AT_1E14 = 52e6
"""Compute-optimal training bytes of a dense model at 1e14 FLOPs, about 160 a non-embedding param; they grow as C^.5."""


@dataclass(frozen=True)
class KeptProperty:
    """One property of the plan and what became of it in the proxies."""

    variable: str
    """The property."""
    planned: Annotated[float, BY_VARIABLE]
    """Its value in the plan."""
    low: Annotated[float, BY_VARIABLE]
    """Least value among the proxies."""
    high: Annotated[float, BY_VARIABLE]
    """Largest value among the proxies."""
    reason: str
    """Why it could not be kept; "" if it was."""


def flops_per_token(architecture: Architecture, seq_len: int) -> float:
    """M [FLOPs], as the leverage law counts: non-embedding params, full attention, no logits."""
    return float(Variables(architecture, seq_len).get("flops_per_token", leverage_convention()))


@cache
def leverage_convention() -> str:
    """The convention in which the leverage law counts FLOPs."""
    return load_law(LEVERAGE_LAW).predicting("efficiency_leverage").convention("train_flops")


def optimal_flops_per_token(train_flops: float) -> float:
    """M of a compute-optimal model on bytes [FLOPs]: C / D, D = 52e6 * (C / 1e14)^.5 (`TOKENS_AT_1E14`)."""
    return train_flops / (TOKENS_AT_1E14 * math.sqrt(train_flops / 1e14))


def usual_depth(d_model: int) -> int:
    """Layers of a proxy: d_model/26 at 32, d_model/40 at 256, d_model/88 at 1024, the proportion of large models."""
    return max(1, round(d_model / (24 + d_model / 16)))


def depths(d_model: int) -> list[int]:
    """Depths tried at one width, so that sizes lie closer together than widths do."""
    usual = usual_depth(d_model)
    return sorted({max(1, round(usual * factor)) for factor in (0.7, 1, 1.4)} | ({usual + 1} if usual < 3 else set()))


def expert_width(d_model: int, granularity: float) -> int:
    """The multiple of `ALIGNMENT` nearest to 2*d_model/granularity [features]."""
    return max(ALIGNMENT, round(2 * d_model / granularity / ALIGNMENT) * ALIGNMENT)


def widths(planned: Architecture, most: float, seq_len: int, vocab_size: int) -> tuple[int, ...]:
    """Widths whose experts keep the plan's granularity.

    Where the smallest model that does so exactly has more than `most` FLOPs per token, narrower widths within
    `GRANULARITY_TOLERANCE` as well; where no width does so exactly, those within it, else all of them.
    """

    def error(d_model: int) -> float:
        width = expert_width(d_model, planned.granularity)
        return abs(2 * d_model / width / planned.granularity - 1)

    near = tuple(d for d in WIDTHS if error(d) <= GRANULARITY_TOLERANCE)
    exact = tuple(d for d in WIDTHS if error(d) < 1e-9)
    if not exact:
        return near or WIDTHS
    if flops_per_token(moe_proxy(planned, exact[0], 1, vocab_size), seq_len) <= most:
        return exact
    return (*(d for d in near if d < exact[0]), *exact)


def _common(planned: Architecture, d_model: int, num_layers: int, vocab_size: int) -> dict[str, object]:
    head_dim = 16 if d_model < 128 else 32 if d_model < 512 else 64
    heads = d_model // head_dim
    kv_heads = next(g for g in range(max(1, heads // 4), 0, -1) if heads % g == 0)
    return {
        "d_model": d_model,
        "num_layers": num_layers,
        "vocab_size": vocab_size,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "qk_norm": "head",
        "tied_embeddings": planned.tied_embeddings,
    }


def moe_proxy(planned: Architecture, d_model: int, num_layers: int, vocab_size: int) -> Architecture:
    """A proxy with the plan's experts at another width; every layer is MoE.

    Raises `InfeasibleError` for a dense plan, which has nothing to verify.
    """
    if planned.is_dense:
        raise InfeasibleError("the plan's model is dense, so there is no leverage to verify; plan one with experts")
    width = expert_width(d_model, planned.granularity)
    shared = round(width * planned.d_shared_expert / planned.d_expert) if planned.num_shared_experts else 0
    return Architecture(
        **_common(planned, d_model, num_layers, vocab_size),  # type: ignore[arg-type]
        num_experts=planned.num_experts,
        num_active_experts=planned.num_active_experts,
        d_expert=width,
        num_shared_experts=planned.num_shared_experts,
        d_shared_expert=shared,
    )


def dense_proxy(planned: Architecture, d_model: int, num_layers: int, vocab_size: int) -> Architecture:
    """A dense model of one width, d_ff = (8/3)*d_model rounded to `ALIGNMENT`; all else as in `moe_proxy`."""
    width = max(ALIGNMENT, round(8 / 3 * d_model / ALIGNMENT) * ALIGNMENT)
    return Architecture(**_common(planned, d_model, num_layers, vocab_size), d_ff=width)  # type: ignore[arg-type]


def one_expert(dense: Architecture) -> Architecture:
    """The dense model written as a MoE: one expert as wide as its feed-forward block, always reached."""
    fields = {name: value for name, value in dense.to_dict().items() if name not in ("d_ff", "num_dense_layers")}
    return Architecture(**fields, num_experts=1, num_active_experts=1, d_expert=dense.d_ff)


def name_of(architecture: Architecture) -> str:
    """The name of a size, as in d64L2."""
    return f"d{architecture.d_model}L{architecture.num_layers}"


def sizes(
    planned: Architecture, *, dense: bool, train_flops: float, count: int, seq_len: int, vocab_size: int
) -> tuple[Architecture, ...]:
    """`count` models around the compute-optimal size of a budget, the smallest first, `SIZE_STEP` apart or more.

    Near the optimum of both arms losses differ little (a factor of two in size costs about 1 %), so one rule serves
    both; where even the smallest models are above it, these are taken.
    """
    wanted = optimal_flops_per_token(train_flops)
    usable = WIDTHS
    if not dense:
        smallest = flops_per_token(dense_proxy(planned, WIDTHS[0], 1, vocab_size), seq_len)
        usable = widths(planned, NEAR_OPTIMAL * max(wanted, smallest), seq_len, vocab_size)
    ranked, costs = _ranked(planned, dense, usable, seq_len, vocab_size)
    best: tuple[float, tuple[int, ...]] | None = None
    for start in range(len(ranked)):
        chosen = [start]
        for place in range(start + 1, len(ranked)):
            if len(chosen) < count and costs[place] >= SIZE_STEP * 0.98 * costs[chosen[-1]]:
                chosen.append(place)
        if len(chosen) < count:
            break
        # the middle of the sizes, in ln, against the optimum
        middle = sum(math.log(costs[place]) for place in chosen) / count
        distance = abs(middle - math.log(wanted)) + 0.2 * _unusual(ranked, chosen)
        if best is None or distance < best[0] - 1e-12:
            best = distance, tuple(chosen)
    assert best is not None, "WIDTHS span more than any number of sizes"
    return tuple(ranked[place] for place in best[1])


@lru_cache(maxsize=16)
def _ranked(
    planned: Architecture, dense: bool, usable: tuple[int, ...], seq_len: int, vocab_size: int
) -> tuple[list[Architecture], list[float]]:
    """Every size that there is, by its FLOPs per token, and these."""
    make = dense_proxy if dense else moe_proxy
    shapes = [make(planned, d, depth, vocab_size) for d in usable for depth in depths(d)]
    ranked = sorted(shapes, key=lambda shape: (flops_per_token(shape, seq_len), shape.d_model))
    return ranked, [flops_per_token(shape, seq_len) for shape in ranked]


def _unusual(ranked: list[Architecture], chosen: list[int]) -> float:
    """How far the chosen sizes are from the usual depth, in ln, on average."""
    shapes = [ranked[place] for place in chosen]
    return sum(abs(math.log(s.num_layers / usual_depth(s.d_model))) for s in shapes) / len(shapes)


def kept(planned: Architecture, proxies: tuple[Architecture, ...]) -> tuple[KeptProperty, ...]:
    """Properties of the plan in the MoE proxies, with the reason where one is not kept."""
    found = []
    for variable in ("activation_ratio", "num_active_experts", "shared_ratio", "granularity"):
        wanted = float(getattr(planned, variable))
        values = [float(getattr(proxy, variable)) for proxy in proxies]
        reason = ""
        if any(not math.isclose(value, wanted, rel_tol=1e-9) for value in values):
            reason = f"widths of experts are multiples of {ALIGNMENT} features, which small models cannot meet exactly"
            if variable == "activation_ratio":
                few = max(proxy.num_experts for proxy in proxies)
                reason = (
                    f"{few} of {planned.num_experts} experts: a router over all of them would cost more, and a batch "
                    "feed each less, than in any large model"
                )
        found.append(KeptProperty(variable, wanted, min(values), max(values), reason))
    depth = planned.num_dense_layers / planned.num_layers
    if depth:
        reason = f"{planned.num_dense_layers} of {planned.num_layers} layers are dense; of so few none can be"
        found.append(KeptProperty("num_dense_layers", float(planned.num_dense_layers), 0.0, 0.0, reason))
    if planned.attention != "gqa":
        reason = f"attention is {planned.attention} in the plan and grouped-query in both arms of the proxies"
        found.append(KeptProperty("attention", 1.0, 0.0, 0.0, reason))
    return tuple(found)
