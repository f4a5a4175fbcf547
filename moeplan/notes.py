"""What a plan must say aloud: extrapolation, caveats, unusual tokens, embeddings, repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moeplan.architecture import Architecture
from moeplan.budget import Budget
from moeplan.laws import Law
from moeplan.plan import Design
from moeplan.units import format_count, format_flops
from moeplan.variables import Variables

MANY_TOKENS, MANY_TOKENS_PER_PARAM = 20e12, 2000.0
"""Above these a plan's tokens are remarked upon."""
MANY_EMBEDDINGS = 0.30
"""Share of embeddings in N_a above which a plan warns."""


def notes(design: Design, architecture: Architecture, budget: Budget, laws: Sequence[Law]) -> tuple[str, ...]:
    """The notes of a plan, in sentences."""
    return (
        *_extrapolation(design, architecture, budget, laws),
        *_tokens(design, architecture, budget),
        *_embeddings(design, architecture),
        *_digits(laws),
    )


def _extrapolation(design: Design, architecture: Architecture, budget: Budget, laws: Sequence[Law]) -> Iterator[str]:
    variables = Variables(architecture, budget.seq_len)
    outside = [law.full_name for law in laws if law.objective and law.objective.outside(variables, design.tokens)]
    if outside:
        yield f"Extrapolated: the plan lies outside the measured range of {', '.join(outside)}."


def _tokens(design: Design, architecture: Architecture, budget: Budget) -> Iterator[str]:
    if design.tokens > MANY_TOKENS or design.tokens_per_param > MANY_TOKENS_PER_PARAM:
        yield (
            f"{format_count(design.tokens)} tokens are {design.tokens_per_param:,.0f} per active param, far beyond "
            "what the laws were measured on."
        )
    if design.tokens >= int(budget.token_cap):
        usable = architecture.flops_per_token(budget.seq_len) * design.tokens / budget.flops
        yield (
            f"The cap of {format_count(budget.token_cap)} tokens binds: only {100 * usable:.2g} % of this compute is "
            "usable under this memory."
        )
    if design.tokens > budget.tokens_available:
        epochs = design.tokens / budget.tokens_available
        yield (
            f"{epochs:.2g} epochs over {format_count(budget.tokens_available)} unique tokens, discounted by "
            "muennighoff2023, which was fitted on dense models: MoEs suffer from repeats sooner (from about 4 epochs, "
            "the more the larger the total size; arXiv 2609.11917)."
        )
    if budget.inference_tokens:
        served = 2 * design.active_params * budget.inference_tokens
        yield (
            f"Serving {format_count(budget.inference_tokens)} tokens takes {format_flops(served)} FLOPs (2*N_a a "
            "token) out of the budget."
        )


def _embeddings(design: Design, architecture: Architecture) -> Iterator[str]:
    share = architecture.embedding_params / design.active_params
    if share > MANY_EMBEDDINGS:
        yield (
            f"Embeddings are {100 * share:.0f} % of the active params: zhao2025 and ludziejewski2025 count them as "
            "if they were layers, so a smaller --vocab-size may be better."
        )


def _digits(laws: Sequence[Law]) -> Iterator[str]:
    second_hand = [law.full_name for law in laws if law.grade == "second_hand"]
    if second_hand:
        yield f"The digits of {' and '.join(second_hand)} come from secondary sources."
    if any(law.allocation for law in laws):
        yield (
            "tian2025 varied the activation ratio only at granularity 2 and granularity only at an activation ratio "
            "of 3.1 %; it discounts a misallocated budget by a rule that is inferred here (moeplan laws tian2025)."
        )
