"""The notes of a plan: extrapolation, caveats, unusual tokens, embeddings, repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from moeplan.architecture import counting
from moeplan.architecture.conventions import Variables
from moeplan.architecture.patterns import pattern_named
from moeplan.architecture.plannable import LATENT
from moeplan.architecture.shape import Architecture
from moeplan.laws import Law
from moeplan.laws.leverage import Leverage
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.laws.terms import extrapolated_turns
from moeplan.plan.budget import Budget
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.variables import Design
from moeplan.units import format_count, format_flops

MANY_TOKENS, MANY_TOKENS_PER_PARAM = 20e12, 2000.0
"""Above these a plan's tokens are remarked upon."""
LOW_PHI = 0.7
"""Allocation efficiency below which a plan warns."""
EDGES = ("d_model", "num_layers", "num_experts", "num_active_experts", "granularity")
"""Axes whose ends are told where a plan lies on them."""
UNSEEN = ("num_heads", "num_layers", "d_model", "attention_share")
"""Design variables that no law sees but through params and FLOPs."""
MANY_EMBEDDINGS = 0.30
"""Share of embeddings in N_a above which a plan warns."""


def notes(
    grid: Grid,
    design: Design,
    architecture: Architecture,
    budget: Budget,
    laws: Sequence[Law],
    leverage: Leverage,
    without: Mapping[str, Design],
) -> tuple[str, ...]:
    """The notes of a plan, in sentences; `without` has the best design if a law is left out, by the law's name."""
    return (
        *_worth(leverage),
        *_unmeasured(architecture, budget),
        *_edges(grid, design, budget),
        *_unseen(budget),
        *_devices(architecture, budget),
        *_extrapolation(design, architecture, budget, laws),
        *_turns(design, architecture, budget, laws, without),
        *_tokens(design, architecture, budget),
        *_embeddings(design, architecture),
        *_digits(laws),
    )


def _turns(
    design: Design, architecture: Architecture, budget: Budget, laws: Sequence[Law], without: Mapping[str, Design]
) -> Iterator[str]:
    """Laws of which a term has turned its sign between what they were measured on and the plan."""
    variables = Variables(architecture, budget.seq_len)
    for law in laws:
        fit = law.objective
        for turn in extrapolated_turns(fit, variables, design.tokens) if fit and law.can_search else ():
            low, high = (format_count(end) for end in fit.domain[turn.where]) if fit else ("", "")
            yield (
                f"In {law.full_name} the term {turn}; it was measured from {low} to {high} only, so here how it "
                f"values {turn.variable} is an extrapolated interaction, and so is its pull "
                f"{_pull(design, without.get(law.full_name))}."
            )


def _pull(design: Design, without: Design | None) -> str:
    """Where a law pulls the choice, by what is best without it."""
    if without is None:
        return "on its own choice"
    denser = design.active_param_ratio > without.active_param_ratio
    return (
        f"towards {'dense' if denser else 'sparse'} designs: without it {format_count(without.total_params)}-"
        f"A{format_count(without.active_params)} on {format_count(without.tokens)} tokens would be best, "
        f"{100 * abs(without.active_params / design.active_params - 1):.0f} % "
        f"{'fewer' if without.active_params < design.active_params else 'more'} active params"
    )


def _unmeasured(architecture: Architecture, budget: Budget) -> Iterator[str]:
    """Parts of the model that no law was measured on."""
    parts = []
    if budget.attention != pattern_named(budget.attention).full:
        labels = list(dict.fromkeys(attention.label for _, attention in counting.attentions(architecture)))
        parts.append(f"{' beside '.join(labels)}")
    if architecture.d_latent:
        parts.append(
            f"experts in a latent width (judged as the {architecture.num_experts // budget.latent} of width d_model, "
            f"{architecture.num_active_experts // budget.latent} active, that cost the same; LatentMoE, arXiv "
            f"2601.18089, measured no loss of quality up to {LATENT[-1]} times)"
        )
    if parts:
        yield (
            f"No law was measured on {' or on '.join(parts)}: they judge the params and FLOPs that they see, by "
            "references with full attention and plain experts."
        )


def _worth(leverage: Leverage) -> Iterator[str]:
    phi = leverage.allocation_efficiency
    if phi * leverage.efficiency_leverage < 1:
        yield (
            f"By {LEVERAGE_LAW} this plan does less than a dense model of the same compute ({phi:.2g} times "
            f"{leverage.efficiency_leverage:.3g}): its size and tokens are too far from the best split of this compute."
        )
    elif phi < LOW_PHI:
        yield (
            f"Only {100 * phi:.2g} % of the budget counts by {LEVERAGE_LAW}, because size and tokens are far from "
            "the best "
            "split of this compute."
        )


def edges(grid: Grid, design: Design, budget: Budget) -> dict[str, tuple[float, float, float]]:
    """Axes whose end a design lies on, with its value and the ends: beyond them, something better may be."""
    ends = {
        "num_layers": (grid.min_layers, grid.max_layers),
        "granularity": (min(grid.granularity), max(grid.granularity)),
    }
    found = {}
    for axis in EDGES:
        low, high = ends.get(axis) or (min(getattr(grid, axis)), max(getattr(grid, axis)))
        value = getattr(design, axis)
        if not budget.limits(axis) and low < high and (value <= low * 1.02 or value >= high * 0.98):
            found[axis] = value, low, high
    return found


def _edges(grid: Grid, design: Design, budget: Budget) -> Iterator[str]:
    found = [
        f"{axis} {value:g} of {low:g} to {high:g}" for axis, (value, low, high) in edges(grid, design, budget).items()
    ]
    if found:
        yield f"On the edge of the declared grid: {', '.join(found)}; widen it with --range."


def _unseen(budget: Budget) -> Iterator[str]:
    given = [name for name in (*budget.fix, *budget.ranges) if name in UNSEEN]
    if given:
        yield (
            f"No law sees {', '.join(given)}: their price in quality is unknown, so a larger V than without "
            "them is no reason to choose them."
        )
    if any(name in ("num_shared_experts", "shared_ratio") for name in (*budget.fix, *budget.ranges)):
        yield (
            "tian2025 counts routed experts only, so shared ones look free to it; the paper itself found a shared "
            "ratio of 8 to 17 % best."
        )


def _devices(architecture: Architecture, budget: Budget) -> Iterator[str]:
    devices = budget.num_devices
    uneven = [
        f"{name} {size}"
        for name, size in (("num_heads", architecture.num_heads), ("num_experts", architecture.num_experts))
        if size % devices
    ]
    if uneven:
        yield (
            f"{' and '.join(uneven)} do not divide over {devices} devices; memory is counted for the fullest one, but "
            "many servers want them to divide."
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
        where = "with these tokens" if budget.token_cap < budget.max_tokens else "under this memory"
        yield (
            f"The cap of {format_count(budget.token_cap)} tokens binds: only {100 * usable:.2g} % of this compute is "
            f"usable {where}."
        )
    if design.tokens > budget.tokens_available:
        epochs = design.tokens / budget.tokens_available
        yield (
            f"{epochs:.2g} epochs over {format_count(budget.tokens_available)} unique tokens, discounted by "
            "muennighoff2023, which was fitted on dense models: MoEs suffer from repeats sooner (from about 4 epochs, "
            "the more the larger the total size; arXiv 2609.11917)."
        )
    if budget.served_tokens and not budget.pays_hours:
        served = 2 * design.active_params * budget.served_tokens
        yield (
            f"Serving {format_count(budget.served_tokens)} tokens takes {format_flops(served)} FLOPs (2*N_a a "
            "token) out of the budget."
        )
    if budget.demand.served and not budget.pays_hours:
        yield (
            "Serving is paid in FLOPs, which counts no memory bandwidth: GPU-hours need what serves (--serve-gpus "
            "8xH100) and what trains (--gpus 256xH100, or --mfu 0.3 for the same device)."
        )


def _embeddings(design: Design, architecture: Architecture) -> Iterator[str]:
    share = architecture.embedding_params / design.active_params
    if share > MANY_EMBEDDINGS:
        yield (
            f"Embeddings are {100 * share:.0f} % of the active params: zhao2025 and ludziejewski2025 count them as "
            "if they were layers, so a smaller --vocab-size may be better."
        )


def open_coefficients(laws: Sequence[Law]) -> Iterator[str]:
    """What the runs behind fitted laws leave open, in sentences that begin with the law's name and a colon."""
    for law in laws:
        if law.objective and law.objective.grade == "fitted":
            yield from (f"{law.full_name}: {note}" for note in law.notes if "not identified" in note)


def _digits(laws: Sequence[Law]) -> Iterator[str]:
    second_hand = [law.full_name for law in laws if law.grade == "second_hand"]
    if second_hand:
        *first, last = second_hand
        names = f"{', '.join(first)} and {last}" if first else last
        yield f"The digits of {names} come from secondary sources."
    yield from open_coefficients(laws)
    if any(law.allocation for law in laws):
        yield (
            "tian2025 varied the activation ratio only at granularity 2 and granularity only at an activation ratio "
            "of 3.1 %; it discounts a misallocated budget by a rule that is inferred here (moeplan laws tian2025)."
        )
