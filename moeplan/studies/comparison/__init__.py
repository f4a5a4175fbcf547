"""MoE against dense, side by side: `compare(Budget("1e22", "80GB"))`; or any two: `compare("plan.json", "olmoe@5.1T")`.

A recommended MoE stands beside dense models that are equal to it in something: compute alone (and then the best split
of it), total params, active params, or loss; each is an exact integer shape with its costs.
`moeplan.studies.comparison.result` says what is in the answer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moeplan import __version__
from moeplan.architecture.proportions import dense_of_size, tokens_for
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Gpus
from moeplan.cost.inference_memory import InferenceSettings
from moeplan.errors import UsageError
from moeplan.laws import load_law
from moeplan.laws.dense import optimal_dense
from moeplan.laws.hyperparameters import hyperparameter_laws, hyperparameters
from moeplan.laws.leverage import Leverage, pooled_laws
from moeplan.laws.roles import LEVERAGE_LAW
from moeplan.plan.assembly import leverage_of
from moeplan.plan.budget import Budget
from moeplan.plan.choice import Choice
from moeplan.plan.law_selection import Laws, select_laws
from moeplan.plan.near_equal import near_equal
from moeplan.plan.notes import open_coefficients
from moeplan.plan.planner import search
from moeplan.plan.training_and_serving import batch_sequences
from moeplan.studies.comparison.answers import equal_loss, law_column, split_by_dense
from moeplan.studies.comparison.candidate import Candidate, candidate, serving_devices, setting
from moeplan.studies.comparison.findings import findings
from moeplan.studies.comparison.optima import Saving, savings, spread
from moeplan.studies.comparison.pair import compare_models
from moeplan.studies.comparison.remarks import dense_notes, versus
from moeplan.studies.comparison.resources import equal_resources
from moeplan.studies.comparison.result import SCHEMA, Comparison, ComparisonProvenance
from moeplan.units import MemoryLimit, format_count

REGIMES = ("overview", "compute", "memory", "loss", "resources")
"""Quantities in which the dense models may equal the MoE; overview shows all but the strict comparison."""
_ROLES = {
    "overview": ("compute_optimal", "equal_total_params", "equal_active_params", "equal_loss"),
    "compute": ("compute_optimal", "equal_active_params"),
    "memory": ("equal_total_params",),
    "loss": ("equal_loss",),
    "resources": ("equal_total_params",),
}
"""The dense models of each regime."""


def compare(
    *subjects: Budget | str | Path,
    equal: str = "overview",
    laws: Laws = None,
    tokens: str | float | None = None,
    seq_len: int | None = None,
    serving: InferenceSettings | None = None,
    memory: str | MemoryLimit | None = None,
    gpus: str | Gpus | None = None,
    choose: str = "best",
    threads: int = 1,
    command: str = "",
    progress: Callable[[str], None] | None = None,
    **served: Any,
) -> Comparison:
    """A recommended MoE beside dense models, or any two models beside each other.

    Parameters
    ----------
    *subjects : Budget, or two of str or Path
        A budget, whose recommended MoE is set beside dense models. Or two of: plan file, config.json, its folder, name
        of a bundled model; each may end in its training tokens, as in "deepseek-v3@14.8T".
    equal : str
        With a budget: what is equal, one of `REGIMES`.
    laws : optional
        With a budget: the laws that choose the MoE, as `moeplan.recommend` takes them.
    tokens, seq_len, serving, memory, gpus : optional
        With two models: training tokens of those that bring none, sequence length that FLOPs are counted at
        [tokens], how the models are served, the memory they must be served in, and what they are trained on.
    choose : str
        With a budget: the rule that the MoE is chosen by, as `moeplan.recommend` takes it.
    threads : int
        Threads to search with; the answer does not depend on it.
    command : str
        The command line, recorded in the answer.
    progress : callable, optional
        Called with a few words before each step.
    **served
        With two models: what `serving` holds, by itself: weight_dtype, kv_dtype, context, concurrency.

    Raises
    ------
    InfeasibleError
        If nothing can be recommended at the budget.
    UsageError
        For anything else that cannot be compared.
    """
    if equal not in REGIMES:
        raise UsageError(f"equal {equal!r} must be one of {', '.join(REGIMES)}")
    if len(subjects) == 1 and isinstance(subjects[0], Budget):
        if served or any(value is not None for value in (tokens, seq_len, serving, memory, gpus)):
            raise UsageError("tokens, seq_len, serving, memory and gpus stand in the budget; give them there")
        return _against_dense(subjects[0], equal, laws, choose, threads, command, progress)
    first, second = _two(subjects)
    if equal != "overview":
        raise UsageError(f"equal {equal} sets a recommended MoE beside dense models; it needs a budget, not two models")
    if laws is not None:
        raise UsageError("laws choose a MoE at a budget; two models are judged by all of them")
    found = compare_models(
        first,
        second,
        tokens=tokens,
        seq_len=seq_len,
        serving=dataclasses.replace(serving or InferenceSettings(), **served),
        memory=memory,
        gpus=gpus,
        threads=threads,
        command=command,
        progress=progress,
    )
    return Comparison.from_json(found.to_json())


def _two(subjects: Sequence[Budget | str | Path]) -> tuple[str | Path, str | Path]:
    """The two models to compare."""
    models = [subject for subject in subjects if not isinstance(subject, Budget)]
    if len(models) != len(subjects) or len(models) != 2:
        raise UsageError(
            f"{len(subjects)} things to compare; give two models, or one budget whose MoE is set beside dense models"
        )
    return models[0], models[1]


def _against_dense(
    budget: Budget,
    regime: str,
    laws: Laws,
    choose: str,
    threads: int,
    command: str,
    progress: Callable[[str], None] | None,
) -> Comparison:
    """The recommended MoE beside the dense models of a regime."""
    say = progress or (lambda _: None)
    selected = select_laws(laws)
    best = search(budget, selected, threads=threads, say=say)
    if choose != "best":
        best = near_equal(best)[choose]
    say("comparing with dense models")
    leverage = leverage_of(best)
    models, serving = _models(best, leverage, regime)
    everyone = selected.everyone
    with_dense, silent = split_by_dense(everyone)
    with_dense.sort(key=lambda law: law.name != LEVERAGE_LAW)
    strict, judged = None, budget
    if regime == "resources":
        unique = budget.tokens_available if math.isfinite(budget.tokens_available) else None
        strict = equal_resources(models[0], models[1], budget.seq_len, unique)
        # Both have the same unique data, so that repeats are discounted; days made the FLOPs, which stand here.
        judged = dataclasses.replace(budget, tokens_available=strict.unique_tokens, days=0.0)
        models = tuple(dataclasses.replace(m, epochs=m.tokens / strict.unique_tokens) for m in models)
    columns = tuple(law_column(law, models, judged) for law in with_dense)
    exact = next((model for model in models if model.role == "equal_loss"), None)
    twins = (
        () if exact is None else (equal_loss(*pair, exact, budget) for pair in zip(with_dense, columns, strict=True))
    )
    saved: tuple[Saving, ...] = ()
    if regime in ("overview", "compute"):
        saved = tuple(saving for law in with_dense for saving in savings(law, models[0].train_flops))
    read = (
        *pooled_laws(),
        *everyone,
        *(load_law(name) for name in (("li2025", "zhao2025", "muennighoff2023") if strict else ())),
    )
    topics = {"memory": ("memory",), "loss": ("quality", "knowledge", "reasoning"), "resources": ("data", "knowledge")}
    found = Comparison(
        schema=SCHEMA,
        regime=regime,
        setting=setting(budget, serving, selected),
        models=models,
        pooled=None if strict else leverage.pooled,
        laws=columns,
        silent=silent,
        versus=tuple(versus(number, models, columns) for number in range(1, len(models))),
        equal_loss=tuple(twin for twin in twins if twin),
        savings=saved,
        savings_spread=spread(saved),
        resources=strict,
        findings=tuple(f for f in findings() if f.topic in topics.get(regime, (f.topic,))),
        notes=(*open_coefficients(everyone), *dense_notes(models, columns, budget, leverage, regime)),
        provenance=ComparisonProvenance(
            version=__version__,
            command=command,
            law_digests={law.full_name: law.digest for law in sorted(read, key=lambda law: law.full_name)},
            grid_digest=best.space.grid.digest,
        ),
    )
    # Through its own file format, so that an answer equals what is read back from its JSON.
    return Comparison.from_json(found.to_json())


def _models(best: Choice, leverage: Leverage, regime: str) -> tuple[tuple[Candidate, ...], Gpus]:
    """The MoE and the dense models of a regime, with their costs, and the devices that all are served on."""
    moe, budget, law, wanted = best.architecture, best.budget, load_law(LEVERAGE_LAW), _ROLES[regime]

    models = [("MoE", "recommended", "what moeplan recommend chooses", moe, float(best.tokens))]
    flops = float(moe.flops_per_token(budget.seq_len)) * best.tokens
    if "compute_optimal" in wanted:
        shape = optimal_dense(law, flops, moe, budget.seq_len)
        says = f"same compute, split into size and tokens as {LEVERAGE_LAW} finds best for dense models"
        models.append(("best dense", "compute_optimal", says, shape, _at_equal_compute(shape, flops, budget)))
    for role, name, params in (
        ("equal_total_params", "equal N", moe.total_params()),
        ("equal_active_params", "equal N_a", moe.active_params()),
    ):
        if role in wanted:
            shape = dense_of_size(params, moe)
            what = "total" if role == "equal_total_params" else "active"
            says = f"same compute, as many params as the MoE has {what} ones ({format_count(params, 4)})"
            models.append((name, role, says, shape, _at_equal_compute(shape, flops, budget)))
    if "equal_loss" in wanted:
        twin = leverage.dense
        says = (
            f"as good as the MoE by {LEVERAGE_LAW} alone, compute x EL x what its split keeps, in that law's best split"
        )
        says += ", on fresh data" if math.isfinite(budget.tokens_available) else ""
        models.append(("equal loss", "equal_loss", says, twin.architecture, twin.tokens))
    serving = serving_devices([shape for *_, shape, _ in models], budget)
    batch_law, *_ = hyperparameter_laws(budget.hyperparameters)

    def cost(name: str, role: str, says: str, shape: Architecture, tokens: float) -> Candidate:
        (own,) = hyperparameters([batch_law], shape, tokens, budget.seq_len)
        batch = batch_sequences(own.batch_tokens, budget.seq_len, budget.gpus.count) if budget.gpus else 0
        return candidate(name, role, says, shape, tokens, budget, serving, batch)

    return tuple(cost(*model) for model in models), serving


def _at_equal_compute(shape: Architecture, train_flops: float, budget: Budget) -> float:
    """Tokens of a dense model at the MoE's compute, no more than there may be."""
    return min(tokens_for(shape, train_flops, budget.seq_len), budget.token_cap)
