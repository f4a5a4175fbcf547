"""Whether runs can determine a form at all; if not, one sentence that says what would."""

from __future__ import annotations

import numpy as np

from moeplan.architecture.conventions import ARCHITECTURAL
from moeplan.errors import InfeasibleError
from moeplan.fitting.names import PARAMS
from moeplan.fitting.optimum import has_optimum
from moeplan.fitting.runs import Runs
from moeplan.laws.signatures import FORMS, form_coordinates, form_variables
from moeplan.texts import counted

ONE_BUDGET = 1.02
"""Largest over least compute up to which all runs are at one budget."""
VARIED = 1e-6
"""Relative range from which a quantity counts as varied."""
TELLING = 0.05
"""Relative range of a form's variable below which the runs cannot tell its exponent from the noise."""
_SEEN_WITH: dict[str, tuple[str, ...]] = {
    "num_experts": ("expansion_ratio", "activation_ratio", "G", "total_params"),
    "num_active_experts": ("expansion_ratio", "activation_ratio", "G", "total_params"),
    "num_shared_experts": ("shared_ratio", "G", "expansion_ratio"),
    "shared_ratio": ("shared_ratio",),
    "granularity": ("granularity",),
    "activation_ratio": ("activation_ratio", "expansion_ratio", "total_params"),
    "expansion_ratio": ("expansion_ratio", "activation_ratio", "total_params"),
    "G": ("G",),
    "tokens": ("tokens", "train_flops", "tokens_per_param"),
    "total_params": ("total_params", "active_params", "base_params", "nonzero_params", "flops_per_token"),
    "active_params": (
        "total_params",
        "active_params",
        "base_params",
        "nonzero_params",
        "flops_per_token",
        "train_flops",
    ),
    "d_expert": ("granularity",),
    "vocab_size": ("total_params", "active_params"),
    "seq_len": ("seq_len",),
}
"""Quantities that runs may vary, and the variables through which a form would notice."""


def check(runs: Runs, form: str, predicts: str, *, has_prior: bool = False) -> None:
    """Raise `InfeasibleError` if the runs cannot determine a form.

    A prior stands in for what the runs leave open: with one, only a form that sees nothing that varies is refused.
    """
    variables = form_variables(form)
    columns = {name: runs.require(name, form) for name in variables}
    count = len(form_coordinates(form).coordinates)
    if runs.count < count and not has_prior:
        fewer = [name for name in simpler(runs, predicts) if name != form]
        hint = f"fit a form with fewer, such as {fewer[0]}" if fewer else "give a --prior"
        raise InfeasibleError(
            f"{counted(runs.count, 'run(s)')} cannot determine the {counted(count, 'coefficient(s)')} of "
            f"{form}; give at least {count}, or {hint}"
        )
    constant = [name for name in variables if not varies(columns[name], TELLING)]
    if constant and (not has_prior or len(constant) == len(variables)):
        unseen = unseen_quantities(runs, form)
        names = " and ".join(constant)
        same = not any(varies(columns[name]) for name in constant)
        verb = f"{'is' if len(constant) == 1 else 'are'} the same"
        if not same:
            share = max(float(np.ptp(columns[name]) / columns[name].max()) for name in constant)
            verb = f"{'varies' if len(constant) == 1 else 'vary'} by no more than {100 * share:.2g} %"
        if set(constant) & set(PARAMS):  # another size moves with what this one leaves out
            own = [name for name in PARAMS if name in runs.naming.columns and name not in variables]
            unseen += [name for name in own if varies(runs.require(name, form), TELLING)]
        blind = f", and does not see {' and '.join(unseen)}, which they vary" if unseen else ""
        fitting = [name for name in simpler(runs, predicts) if name != form]
        hint = f"{fitting[0]} sees what they vary" if fitting else f"add runs that vary {names}"
        raise InfeasibleError(
            f"{form} cannot be determined: it sees {', '.join(variables)}, of which {names} {verb} in all "
            f"{counted(runs.count, 'run(s)')}{blind}; {hint}{'' if has_prior else ', or give a --prior'}"
        )
    measured = runs.require(predicts, form)
    if runs.count > 1 and not varies(measured):
        raise InfeasibleError(
            f"{predicts} is {measured[0]:.6g} in all {runs.count} runs, which determines no law; give runs in which it "
            f"differs, or name another column by --map {predicts}=COLUMN"
        )
    flops = runs.column("train_flops")
    one = flops is not None and flops.max() <= ONE_BUDGET * flops.min()
    if one and has_optimum(form) and not has_prior:
        assert flops is not None
        raise InfeasibleError(
            f"all {runs.count} runs are at one budget, {flops.min():.3g} FLOPs, so {form} cannot tell size from "
            f"tokens; add runs at a second budget, or give a --prior"
        )


def varies(values: np.ndarray, least: float = VARIED) -> bool:
    """Whether a quantity is varied by more than a share of its largest value."""
    return bool(np.ptp(values) > least * np.abs(values).max())


def unseen_quantities(runs: Runs, form: str) -> list[str]:
    """Quantities that the runs vary and a form does not see, by their glossary names."""
    seen = set(form_variables(form))
    unseen = []
    ratio = runs.column("activation_ratio")
    moe = [True] * runs.count if ratio is None or (ratio == 1).all() else (ratio != 1).tolist()
    for name in runs.naming.columns:
        through = _SEEN_WITH.get(name)
        if through is None or seen & set(through):
            continue
        # How a MoE is routed differs from how a dense model is not, which no form is asked to see.
        cells = {cell for cell, counts in zip(runs.texts(name), moe, strict=True) if cell and counts}
        if len(cells) > 1 and varies(np.array([_as_number(runs, cell) for cell in cells])):
            unseen.append(name)
    return unseen


def simpler(runs: Runs, predicts: str) -> list[str]:
    """Forms that the runs can determine, those with most coefficients first."""
    forms = [form for form in candidates(runs, predicts) if len(form_coordinates(form).coordinates) <= runs.count]
    return sorted(forms, key=lambda form: -len(form_coordinates(form).coordinates))


def candidates(runs: Runs, predicts: str) -> list[str]:
    """Forms that predict a quantity from what the runs vary."""
    found = []
    for form in FORMS:
        names = form_variables(form)
        if form_coordinates(form).predicts != predicts or not names or not set(names) <= set(ARCHITECTURAL):
            continue
        columns = [runs.column(name) for name in names]
        if all(column is not None and varies(column, TELLING) for column in columns):
            found.append(form)
    return found


def _as_number(runs: Runs, cell: str) -> float:
    try:
        return runs.table.number(cell)
    except ValueError:
        return float("nan")
