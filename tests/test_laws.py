"""Bundled laws: their own checks, numbers printed elsewhere, precision of the equations, and what must hold of them."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeplan.architecture.conventions import CONVENTIONS, Variables
from moeplan.architecture.shape import Architecture
from moeplan.laws import Fit, Law, law_names, load_law
from moeplan.laws.checks import compute_optimum, minimize_on, run_checks
from moeplan.laws.families import krajewski_blocks, top1_blocks
from moeplan.laws.forms import allocation_efficiency, efficiency_leverage, repeated_tokens, routed
from moeplan.laws.law import PREDICTS
from moeplan.laws.reduced import saturated_expansion
from moeplan.laws.signatures import FAMILIES, FORMS, form_variables

BY_NAME = {name: load_law(name) for name in law_names()}
LAWS = list(BY_NAME.values())
FITS = [fit for law in LAWS for fit in law.fits.values()]
every_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
every_fit = pytest.mark.parametrize("fit", FITS, ids=lambda fit: fit.full_name)

RANGES = {
    "total_params": (1e7, 1e13),
    "active_params": (1e7, 1e12),
    "nonzero_params": (1e6, 1e9),
    "base_params": (1e8, 1e11),
    "tokens": (1e9, 1e14),
    "base_tokens": (1e9, 1e12),
    "unique_tokens": (1e9, 1e13),
    "train_flops": (1e17, 1e26),
    "flops_per_token": (1e7, 1e13),
    "activation_ratio": (0.004, 1.0),
    "granularity": (1.0, 64.0),
    "expansion_ratio": (1.0, 512.0),
    "weight_sparsity": (0.01, 0.95),
    "G": (1.0, 20.0),
    "shared_ratio": (0.01, 0.7),
}
"""Far wider than any law's domain: the equations must behave wherever the search may ask them."""


def values_of(*names: str) -> st.SearchStrategy[dict[str, float]]:
    """One value for each of the variables `names`."""
    return st.fixed_dictionaries({name: st.floats(*RANGES[name]) for name in names})


def objective(name: str) -> Fit:
    """The fit of the law `name` that judges architectures."""
    fit = BY_NAME[name].objective
    assert fit is not None
    return fit


# ---------------------------------------------------------------------------------------------------- every law


@every_law
def test_law_reproduces_the_numbers_of_its_paper(law: Law) -> None:
    """Every number that a law file lists under `checks` comes out within the tolerance stated there."""
    assert [result for result in run_checks(law) if not result.passed] == []


@every_law
def test_law_has_checks_unless_it_is_only_tables(law: Law) -> None:
    """A law without a number to check it against is not bundled; li2025 has no equation to check."""
    assert bool(law.checks) == bool(law.fits)
    assert bool(law.fits) != (law.name == "li2025")


@every_law
def test_citation_is_complete(law: Law) -> None:
    """Every law names authors, year, title and place, and an arXiv id as text unless it has none (marin2026)."""
    citation = law.citation
    assert citation.authors
    assert citation.title
    assert citation.where
    assert isinstance(citation.arxiv, str)
    assert re.fullmatch(r"\d{4}\.\d{5}", citation.arxiv) or law.name == "marin2026"
    assert str(citation.year) in str(citation)
    if law.name != "llama3":
        assert law.name.endswith(str(citation.year))


@every_fit
def test_fit_speaks_the_glossary(fit: Fit) -> None:
    """Domains, fixed and dense values use known variables; each counted variable has its convention in the file."""
    known = {variable for form in FORMS for variable in form_variables(form)}
    known |= {"num_experts", "num_active_experts", "num_shared_experts", "tokens_per_param"}
    assert set(fit.domain) | set(fit.fixed) | set(fit.dense) <= known
    counted = (set(fit.variables) | set(fit.domain)) & set(CONVENTIONS)
    assert counted <= set(fit.conventions) | set(fit.unstated)
    assert set(fit.unstated) <= set(CONVENTIONS)
    assert fit.predicts in PREDICTS


@every_fit
def test_arrays_give_what_scalars_give(fit: Fit) -> None:
    """A fit over a grid is the fit at each of its points."""
    rng = np.random.default_rng(20250707)
    columns = [np.exp(rng.uniform(*np.log(RANGES[name]), size=50)) for name in fit.variables]
    grid = np.broadcast_to(fit(*columns), 50)
    points = [fit(*(float(column[i]) for column in columns)) for i in range(50)]
    np.testing.assert_allclose(grid, points, rtol=1e-12)
    assert np.all(np.isfinite(grid))
    assert np.all(grid > 0)


@pytest.mark.parametrize(
    "fit",
    [fit for fit in FITS if fit.predicts == "loss" and "tokens" in fit.variables],
    ids=lambda fit: fit.full_name,
)
@settings(deadline=None)
@given(data=st.data())
def test_loss_falls_with_tokens(fit: Fit, data: st.DataObject) -> None:
    """More training tokens never raise the loss of any law that sees them."""
    values = data.draw(values_of(*fit.variables))
    more = values | {"tokens": values["tokens"] * data.draw(st.floats(1.01, 100))}
    assert fit(*(more[name] for name in fit.variables)) < fit(*(values[name] for name in fit.variables))


def test_helpers_and_reductions_are_no_forms() -> None:
    """A law file can name the equations only, and every equation says in its docstring what it is."""
    assert "expansion_joint" in FORMS
    assert not {"saturated_expansion", "reduced_expansion_joint"} & set(FORMS)
    assert {"yun2024", "wang2024"}.isdisjoint(law_names())
    assert {"expansion_interaction", "expert_count_power_law"} <= set(FORMS)
    assert all(" = " in (form.__doc__ or "") for form in FORMS.values())


def test_which_laws_can_search() -> None:
    """Only laws that trade size against tokens, and were fitted on MoEs, choose an architecture."""
    can = {law.name for law in LAWS if law.can_search}
    assert can == {"tian2025", "zhao2025", "ludziejewski2025", "krajewski2024", "abnar2025"}
    assert {law.name for law in LAWS if law.can_search and not law.has_dense} == {"zhao2025"}


# ---------------------------------------------------------------------------------------------------- precision

PRECISE: dict[str, Callable[..., Decimal]] = {
    "zhao2025": lambda c, N, Na, D, G, S: (
        (c["e"] * G + c["f"] / G + c["m"] * S**2 + c["n"] * S)
        * (N ** -c["alpha"] + c["k"] * Na ** -c["alpha"] + c["h"] * Na / N)
        + c["a"] * N ** -c["alpha"]
        + c["b"] * D ** -c["beta"]
        + c["c"] * Na ** -c["alpha"]
        + c["eps"]
    ),
    "ludziejewski2025": lambda c, Na, D, E: (
        c["a"] * expanded(c, E) ** c["delta"] * Na ** (c["alpha"] + c["gamma"] * expanded(c, E).ln())
        + c["b"] * expanded(c, E) ** c["omega"] * D ** (c["beta"] + c["zeta"] * expanded(c, E).ln())
        + c["c"]
    ),
    "abnar2025": lambda c, N, D, A: (
        c["a"] / N ** c["alpha"]
        + c["b"] / D ** c["beta"]
        + c["c"] / A ** c["lam"]
        + c["d"] / (A ** c["delta"] * N ** c["gamma"])
        + c["e"]
    ),
    "krajewski2024": lambda c, N, D, g: (
        c["c"] + (c["g_c"] / g ** c["gamma"] + c["a"]) / N ** c["alpha"] + c["b"] / D ** c["beta"]
    ),
    "clark2022": lambda c, N, E: (
        N ** (c["a"] + c["c"] * expanded(c, E).log10()) * expanded(c, E) ** c["b"] * Decimal(10) ** c["d"]
    ),
    "tian2025": lambda c, A, g, C: (
        (1 / (1 / (A + 1 / (1 / c["A_start"] - 1 / c["A_max"])) + 1 / c["A_max"]))
        ** (
            c["a"]
            + c["d"] * C.log10()
            + c["gamma"] * (g.ln() / Decimal(2).ln()) ** 2
            + c["beta"] * g.ln() / Decimal(2).ln()
        )
    ),
}
"""The published equations once more, written as printed, in 40-digit decimals."""


def expanded(c: dict[str, Decimal], E: Decimal) -> Decimal:
    """Ehat of clark2022 and ludziejewski2025."""
    return 1 / (1 / (E - 1 + 1 / (1 / c["Es"] - 1 / c["Em"])) + 1 / c["Em"])


@pytest.mark.parametrize("name", PRECISE)
def test_equations_agree_with_decimals(name: str) -> None:
    """Each MoE equation agrees to 13 digits with the printed one in 40-digit decimals."""
    fit = objective(name)
    points = {
        "total_params": 36e9,
        "active_params": 3e9,
        "tokens": 2e12,
        "G": 9.0,
        "shared_ratio": 0.125,
        "expansion_ratio": 28.5,
        "activation_ratio": 0.03125,
        "granularity": 8.0,
        "train_flops": 1e22,
    }
    values = [points[variable] for variable in fit.variables]
    with localcontext() as context:
        context.prec = 40
        coefficients = {key: Decimal(repr(value)) for key, value in fit.coefficients.items()}
        reference = PRECISE[name](coefficients, *(Decimal(repr(value)) for value in values))
    assert float(fit(*values)) == pytest.approx(float(reference), rel=1e-13)


# ---------------------------------------------------------------------------------------------------- golden numbers


@pytest.mark.parametrize(
    ("train_flops", "leverages"),
    [(1e20, [6.36, 5.54, 4.54, 3.53, 2.64, 1.93]), (1e22, [11.22, 9.35, 7.22, 5.20, 3.56, 2.36])],
)
def test_leverage_over_activation_ratio(train_flops: float, leverages: list[float]) -> None:
    """tian2025 at granularity 12 for activation ratios 1/128 to 1/4."""
    found = [objective("tian2025")(1 / 2**q, 12.0, train_flops) for q in (7, 6, 5, 4, 3, 2)]
    assert found == pytest.approx(leverages, abs=0.005)


def test_leverage_over_granularity() -> None:
    """tian2025 at an activation ratio of 3.1 % and 1e22 FLOPs is flat around its optimum in granularity."""
    expected = {2: 5.27, 4: 6.46, 6: 6.94, 8: 7.15, 10: 7.24, 12: 7.24, 16: 7.16, 24: 6.83}
    found = [objective("tian2025")(0.031, float(g), 1e22) for g in expected]
    assert found == pytest.approx(list(expected.values()), abs=0.005)


@pytest.mark.parametrize(
    ("activation_ratio", "granularity", "leverage"), [(12 / 384, 32 / 3, 7.22), (8 / 256, 8.0, 7.13)]
)
def test_leverage_of_released_models(activation_ratio: float, granularity: float, leverage: float) -> None:
    """tian2025 gives Ling-mini-beta 7.22 and the Ling 2.0 shape 7.13 at 1e22 FLOPs."""
    assert objective("tian2025")(activation_ratio, granularity, 1e22) == pytest.approx(leverage, abs=0.005)


@pytest.mark.parametrize(
    ("column", "bias", "rms"),
    [("activation_ratio_routed", 0.02, 0.07), ("activation_ratio_with_shared", -0.09, 0.12)],
)
def test_leverage_against_digitised_figures(column: str, bias: float, rms: float) -> None:
    """Against 67 points read from the paper's figures the law fits with routed experts counted, not shared ones too."""
    with (Path(__file__).parent / "data" / "tian2025_digitised_el.csv").open(encoding="utf-8") as file:
        points = list(csv.DictReader(file))
    ratio, granularity, flops, leverage = (
        np.array([float(point[name]) for point in points])
        for name in (column, "granularity", "train_flops", "efficiency_leverage")
    )
    residuals = np.log(objective("tian2025")(ratio, granularity, flops) / leverage)
    assert len(residuals) == 67
    assert residuals.mean() == pytest.approx(bias, abs=0.005)
    assert math.sqrt((residuals**2).mean()) == pytest.approx(rms, abs=0.005)


def test_residual_in_the_file_is_the_measured_one() -> None:
    """The uncertainty that tian2025 states is at least the residual of those points and never below 10 %."""
    uncertainty = objective("tian2025").uncertainty
    assert uncertainty is not None
    assert uncertainty.rms == pytest.approx(0.07, abs=0.005)
    assert uncertainty.half_width(0) >= 0.10
    assert uncertainty.half_width(2) > uncertainty.half_width(1) > uncertainty.half_width(0)


DEEPSEEK_V3 = Architecture(
    d_model=7168,
    num_layers=61,
    vocab_size=129280,
    num_heads=128,
    head_dim=128,
    attention="mla",
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    d_ff=18432,
    num_experts=256,
    num_active_experts=8,
    d_expert=2048,
    num_shared_experts=1,
    num_dense_layers=3,
)


@pytest.mark.parametrize(
    ("name", "expected", "within"),
    [
        ("tian2025", 12.85, 0.05),
        ("zhao2025", 1.9956, 1e-3),
        ("ludziejewski2025", 1.8140, 1e-3),
        ("abnar2025", 1.6221, 1e-3),
    ],
)
def test_deepseek_v3_under_every_law(name: str, expected: float, within: float) -> None:
    """DeepSeek-V3 on its 14.8T tokens, converted to each law's own conventions.

    The numbers were worked out before this package was written, by a program that shares no code with it and was not
    kept.
    """
    assert objective(name).at(Variables(DEEPSEEK_V3, 4096), 14.8e12) == pytest.approx(expected, abs=within)


def test_deepseek_v3_is_outside_what_was_measured() -> None:
    """Every law that can search says that DeepSeek-V3 is an extrapolation, and by how much."""
    variables = Variables(DEEPSEEK_V3, 4096)
    for law in LAWS:
        if law.can_search and law.objective is not None:
            outside = law.objective.outside(variables, 14.8e12)
            assert outside, law.name
            assert all(item.decades > 0 for item in outside)


@pytest.mark.parametrize(
    ("total_params", "train_flops", "percent"),
    [(30e9, 1e23, 21), (235e9, 1e24, 13.4), (671e9, 3.3e24, 10.7), (1e12, 3e24, 8.1)],
)
def test_compute_optimal_active_ratio_of_zhao2025(total_params: float, train_flops: float, percent: float) -> None:
    """With the params fixed and C = 6*Na*D the best active share is far below the one at free compute."""
    law = objective("zhao2025")
    found = minimize_on(
        lambda r: law(total_params, r * total_params, split(total_params, r, train_flops), 6.778, 0.3148), 1e-3, 1
    )
    assert 100 * found == pytest.approx(percent, abs=0.1)


def split(total_params: float, active_param_ratio: Any, train_flops: float) -> Any:
    """Tokens that `train_flops` buy at 6 FLOPs per active param."""
    return train_flops / (6 * active_param_ratio * total_params)


@pytest.mark.parametrize(
    ("total_params", "train_flops", "zhao", "abnar", "joint"),
    [(36e9, 1e22, 7.3, 5.9, 11.6), (36e9, 1e23, 19, 14, 48), (288e9, 1e24, 12, 6.2, 22)],
)
def test_what_the_laws_agree_on(
    total_params: float, train_flops: float, zhao: float, abnar: float, joint: float
) -> None:
    """At fixed params and compute three laws put the best active share in the same region [percent]."""

    def best(law: Fit, variables: Callable[[Any, Any], tuple[Any, ...]]) -> float:
        def loss(r: Any) -> Any:
            return law(*variables(r, split(total_params, r, train_flops)))

        return 100 * minimize_on(loss, 1e-3, 1)

    assert best(
        objective("zhao2025"), lambda r, D: (total_params, r * total_params, D, 6.778, 0.3148)
    ) == pytest.approx(zhao, rel=0.03)
    assert best(objective("abnar2025"), lambda r, D: (total_params, D, r)) == pytest.approx(abnar, rel=0.03)
    # The paper's own blocks without embeddings: Na = 13*L*d^2 and N = (4 + 9E)*L*d^2.
    in_blocks = best(objective("ludziejewski2025"), lambda r, D: (r * total_params, D, (13 / r - 4) / 9))
    assert in_blocks == pytest.approx(joint, rel=0.03)


def test_laws_disagree_on_the_worth_of_a_moe() -> None:
    """At 1e20 FLOPs krajewski2024 finds a MoE worth about 20 times its compute where ludziejewski2025 finds about 3."""
    fine = BY_NAME["krajewski2024"]
    shapes = [{"expansion_ratio": 64.0, "granularity": float(2**q)} for q in range(7)]
    reached = compute_optimum(fine.fits["moe-e64"], 1e20, 100, 1e5, shapes)["loss"]
    dense = compute_optimum(fine.fits["dense"], 2.1e21, 1e6, 1e13, [{}])["loss"]
    assert dense == pytest.approx(reached, abs=1e-2)

    joint = objective("ludziejewski2025")
    reached = compute_optimum(joint, 1e20, 1e7, 1e13, [{"expansion_ratio": 32.0}])["loss"]
    assert compute_optimum(joint, 2.5e20, 1e7, 1e13, [{"expansion_ratio": 1.0}])["loss"] > reached
    assert compute_optimum(joint, 3.3e20, 1e7, 1e13, [{"expansion_ratio": 1.0}])["loss"] < reached


@pytest.mark.parametrize(
    ("fit", "published", "percent"),
    [
        ("s-base", (-0.082, -0.108, 0.009, 1.104, 1.847, 314.478), 0.4),
        ("rl-r", (-0.083, -0.126, 0.012, 1.111, 1.880, 469.982), 1.6),
        ("hash", (-0.087, -0.136, 0.012, 1.157, 4.175, 477.741), 0.9),
    ],
)
def test_rounded_digits_of_clark2022_lose_accuracy(fit: str, published: tuple[float, ...], percent: float) -> None:
    """The three published digits move the loss by about 1 %, and the size where experts stop helping by much more."""
    law = BY_NAME["clark2022"].fits[fit]
    rounded = dict(zip(("a", "b", "c", "d", "Es", "Em"), published, strict=True))
    size, experts = np.meshgrid(np.geomspace(16.5e6, 1.3e9, 30), np.geomspace(1, 512, 30))
    error = np.abs(np.log(routed(size, experts, **rounded) / law(size, experts)))
    assert 100 * error.mean() == pytest.approx(percent, abs=0.15)
    cutoffs = [10 ** (-c["b"] / c["c"]) for c in (dict(law.coefficients), rounded)]
    assert not 0.8 < cutoffs[1] / cutoffs[0] < 1.25


def test_rounded_digits_of_hoffmann2022_move_the_optimum() -> None:
    """The digits printed in the paper's body put the optimum of 5.76e23 FLOPs a fifth lower than its source's."""
    law = objective("hoffmann2022")

    def optimal(coefficients: dict[str, float]) -> float:
        # The closed form of Hoffmann et al., Eq. 4.
        alpha, beta = coefficients["alpha"], coefficients["beta"]
        scale = (alpha * coefficients["A"] / (beta * coefficients["B"])) ** (1 / (alpha + beta))
        return float(scale * (5.76e23 / 6) ** (beta / (alpha + beta)))

    found = compute_optimum(law, 5.76e23, 1e8, 1e13, [{}])["total_params"]
    assert found == pytest.approx(optimal(dict(law.coefficients)), rel=1e-5)
    rounded = dict(law.coefficients) | {"E": 1.69, "alpha": 0.34, "beta": 0.28}
    assert optimal(rounded) == pytest.approx(0.8 * found, rel=0.02)


def test_rounded_digits_of_llama3_miss_its_own_prediction() -> None:
    """The exponent and coefficient rounded to two digits give 10.5T tokens at 3.8e25 FLOPs instead of 16.5T."""
    fit = BY_NAME["llama3"].predicting("tokens")
    rounded = 0.29 * 3.8e25**0.53
    assert rounded == pytest.approx(10.5e12, rel=0.01)
    assert fit(3.8e25) == pytest.approx(16.5e12, rel=0.02)


def test_tokens_per_active_param_are_a_band() -> None:
    """At 1e23 FLOPs the optimal tokens per active param run from 34 (marin2026) to 108 (hunyuan2024)."""
    ratios = [
        BY_NAME[name].predicting("tokens")(1e23) / BY_NAME[name].predicting("active_params")(1e23)
        for name in ("marin2026", "hunyuan2024")
    ]
    assert ratios == pytest.approx([34, 108], abs=0.5)


def test_abnar2025_has_an_interior_best_share_that_falls_with_params() -> None:
    """At fixed params and compute the loss over inactive share has one inner optimum, which rises with the params."""
    law = objective("abnar2025")
    best = []
    for total_params in (1e9, 4e9, 16e9):
        ratio = minimize_on(lambda r, N=total_params: law(N, split(N, r, 1e21), r), 1e-3, 1)
        assert 2e-3 < ratio < 0.9
        best.append(1 - ratio)
    assert best == sorted(best)


def test_li2025_tables_hold_its_findings() -> None:
    """The measured points are all there: best at 20 % active at both sizes, better than dense at the same compute."""
    tables = {table.name: table for table in BY_NAME["li2025"].tables}
    for size, points in (("2b", 9), ("7b", 8)):
        rows = tables[f"moe-{size}"].rows
        assert len(rows) == points
        ratio, loss = min(rows, key=lambda row: row[1])
        assert ratio == pytest.approx(0.2, abs=0.001)
        assert loss < tables[f"dense-{size}"].rows[0][1]
    beats_dense = [ratio for ratio, loss in tables["moe-2b"].rows if loss < tables["dense-2b"].rows[0][1]]
    assert (min(beats_dense), max(beats_dense)) == pytest.approx((0.15, 0.44), abs=0.005)


# ---------------------------------------------------------------------------------------------------- properties


@settings(deadline=None)
@given(values_of("granularity", "train_flops"))
def test_only_dense_is_clamped(values: dict[str, float]) -> None:
    """A dense model has a leverage of at least 1; a MoE may have less and is not lifted to it."""
    coefficients = objective("tian2025").coefficients
    granularity, flops = values["granularity"], values["train_flops"]
    dense, nearly = (efficiency_leverage(ratio, granularity, flops, **coefficients) for ratio in (1.0, 1 - 1e-9))
    assert dense >= 1
    assert dense == pytest.approx(max(1.0, float(nearly)), rel=1e-6)


def test_a_moe_may_have_less_leverage_than_dense() -> None:
    """Far below its domain the law gives a MoE less than 1, which the clamp for dense models leaves alone."""
    assert objective("tian2025")(1 / 13, 4.0, 1e12) == pytest.approx(0.70, abs=0.01)


@settings(deadline=None)
@given(
    flops_per_token=st.floats(1e7, 1e13),
    low=st.floats(1e16, 1e27),
    factor=st.floats(1, 1e6),
)
def test_more_compute_never_hurts_an_allocation(flops_per_token: float, low: float, factor: float) -> None:
    """At fixed FLOPs per token the budget that counts, C*phi, never falls with C; phi is a share."""
    coefficients = dict(BY_NAME["tian2025"].fits["allocation_efficiency"].coefficients)
    few, many = (allocation_efficiency(flops_per_token, C, **coefficients) for C in (low, low * factor))
    assert 0 <= few <= 1
    assert low * factor * many >= low * few * (1 - 1e-12)


@settings(deadline=None)
@given(train_flops=st.floats(1e16, 1e27), off=st.floats(-0.5, 0.5))
def test_allocation_is_lossless_at_its_optimum(train_flops: float, off: float) -> None:
    """phi is 1 at M_opt(C), and falls by w*ln(M/M_opt)^2 near it."""
    law = BY_NAME["tian2025"]
    fit, optimum = law.fits["allocation_efficiency"], law.fits["flops_per_token"](train_flops)
    assert fit(optimum, train_flops) == pytest.approx(1, abs=1e-9)
    assert math.log(fit(optimum * math.exp(off), train_flops)) == pytest.approx(-0.31 * off**2, abs=1e-9)


@settings(deadline=None)
@given(unique=st.floats(1e9, 1e13), epochs=st.floats(0.01, 1e4), more=st.floats(1, 10))
def test_repeats_are_worth_less_but_something(unique: float, epochs: float, more: float) -> None:
    """One epoch counts in full; repeats count ever less, never negatively, up to 1 + R times the unique tokens."""
    R = BY_NAME["muennighoff2023"].fits["effective_tokens"].coefficients["R"]
    worth, later = (repeated_tokens(unique * e, unique, R=R) for e in (epochs, epochs * more))
    assert worth <= unique * epochs * (1 + 1e-12)
    assert later >= worth * (1 - 1e-12)
    assert later <= unique * (1 + R) * (1 + 1e-12)
    if epochs <= 1:
        assert worth == unique * epochs


@settings(deadline=None)
@given(expansion=st.floats(1, 1e6), more=st.floats(1, 100), start=st.floats(1.1, 5), end=st.floats(50, 1000))
def test_expansion_saturates(expansion: float, more: float, start: float, end: float) -> None:
    """Ehat is Es for a dense model, rises with the experts and stays below Em."""
    assert saturated_expansion(1.0, start, end) == pytest.approx(start, rel=1e-12)
    value, larger = (saturated_expansion(e, start, end) for e in (expansion, expansion * more))
    assert start * (1 - 1e-12) <= value <= larger * (1 + 1e-12) <= end * (1 + 1e-11)


@settings(deadline=None)
@given(d_model=st.floats(64, 1e5))
def test_families_count_as_their_papers(d_model: float) -> None:
    """N is 43 Na at E = 64 in krajewski2024; both families are dense when nothing is inactive."""
    blocks, _ = krajewski_blocks(d_model, expansion_ratio=64, granularity=1)
    assert blocks["total_params"] == pytest.approx(43 * blocks["active_params"])
    for family, fixed in (
        (krajewski_blocks, {"expansion_ratio": 1, "granularity": 1}),
        (top1_blocks, {"activation_ratio": 1, "vocab_size": 50257}),
    ):
        variables, _ = family(d_model, **fixed)
        assert variables["total_params"] == pytest.approx(variables["active_params"])


@pytest.mark.parametrize("name", ["ludziejewski2025", "krajewski2024", "abnar2025", "hoffmann2022", "besiroglu2024"])
def test_compute_optimum_spends_the_compute_and_has_no_better_neighbour(name: str) -> None:
    """The continuous optimum uses all of C, and a slightly smaller or larger model at the same C is no better."""
    fit = objective(name)
    choice = {
        "six_active_params": {"expansion_ratio": 8.0},
        "krajewski_blocks": {"expansion_ratio": 64.0, "granularity": 8.0},
        "top1_blocks": {"activation_ratio": 0.1, "vocab_size": 50257.0},
        "six_total_params": {},
    }[fit.family]
    low, high = (100.0, 1e5) if "blocks" in fit.family else (1e7, 1e13)
    best = compute_optimum(fit, 1e21, low, high, [choice])
    size = minimize_on(lambda x: np.abs(FAMILIES[fit.family](x, **choice)[1] - 1e21 / best["tokens"]), low, high)
    for factor in (1.0, 0.97, 1.03):
        variables, flops = FAMILIES[fit.family](size * factor, **choice)
        values = choice | variables | {"tokens": 1e21 / flops}
        loss = fit(*(values[variable] for variable in fit.variables))
        assert loss >= best["loss"] - 1e-9
        if factor == 1:
            assert loss == pytest.approx(best["loss"], abs=1e-9)
