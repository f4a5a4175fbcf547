"""The optimizer against a plain loop, against exact inversion, and against what must hold whatever the laws say."""

from __future__ import annotations

import dataclasses
import itertools
import math
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moeplan.architecture.conventions import Variables
from moeplan.architecture.shape import Architecture
from moeplan.cost.inference_memory import InferenceSettings, total_inference_bytes
from moeplan.errors import InfeasibleError, MoeplanError
from moeplan.laws import load_law
from moeplan.plan.budget import Budget
from moeplan.plan.choice import choose_design, make_space
from moeplan.plan.planner import recommend
from moeplan.plan.search.designs import Designs, DesignVariables
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.reference import LossReference, token_partners
from moeplan.plan.search.space import TIE, Space
from tests.small import LAWS, VOCAB, laws, small_grid

BUDGETS = ((1e20, "8GB"), (1e22, "80GB"), (1e24, "640GB"))


def budget(flops: float, memory: str, **conditions: object) -> Budget:
    """A budget at the small grid's vocabulary."""
    return Budget(flops, memory, vocab_size=VOCAB, tied_embeddings=True, **conditions)  # type: ignore[arg-type]


# --- a plain loop ----------------------------------------------------------------------------------------------------


def every_architecture(grid: Grid) -> list[Architecture]:
    """The grid's designs one by one, by the rules as its documentation states them."""
    found = []
    for d in grid.d_model:
        small = d < 1024
        width = 64 if small else 128
        depths = sorted({int(d / aspect + 0.5) for aspect in grid.aspect_ratio})
        step = 16 if small else 64
        experts_widths = sorted({max(step, round(2 * d / g / step) * step) for g in grid.granularity})
        heads = [h for h in range(4, 200, 4) if (h < 32 or h % 8 == 0) and h * width == d]
        experts = grid.num_experts, grid.num_active_experts, grid.num_shared_experts, experts_widths
        for depth, h, e, k, s, f, dense in itertools.product(depths, heads, *experts, grid.num_dense_layers):
            if not 8 <= depth <= 128 or (e > 256 and small) or not (k < e and k >= 0.008 * e):
                continue
            kv = 8 if h >= 32 else h // 4
            attention = 6 * (2 * d * h * width + 2 * d * kv * width + 2 * width) + 12 * h * width * grid.seq_len
            if not 0.25 <= attention / (attention + 6 * 3 * d * (k + s) * f) <= 0.45:
                continue
            found.append(
                Architecture(
                    d_model=d,
                    num_layers=depth,
                    vocab_size=grid.vocab_size,
                    num_heads=h,
                    num_kv_heads=kv,
                    head_dim=width,
                    d_ff=(k + s) * f * dense,
                    num_experts=e,
                    num_active_experts=k,
                    d_expert=f,
                    num_shared_experts=s,
                    num_dense_layers=dense,
                    tied_embeddings=grid.tied_embeddings,
                    qk_norm="head",
                )
            )
    return found


def exact_ln_compute(law, architectures, loss: float) -> float:
    """ln C_l by bisection over all reference designs, in plain Python."""
    fit = law.objective
    variables = [Variables(a, 4096) for a in architectures]
    low, high = math.log(1e14), math.log(1e27)
    for _ in range(45):
        middle = (low + high) / 2
        compute = math.exp(middle)
        best = min(float(fit.at(v, compute / v.get("flops_per_token"))) for v in variables)
        low, high = (low, middle) if best <= loss else (middle, high)
    return high


def exact_leverage_ln_compute(law, architectures, architecture: Architecture, tokens: float) -> float:
    """ln C' of tian2025 in plain Python: C'*EL_max(C') = C*EL*phi, times the ratio of moeplan's FLOPs to the law's."""
    fit, phi = law.objective, law.allocation
    v = Variables(architecture, 4096)
    own = v.get("train_flops", "non_embedding_full_attention", tokens)
    worth = math.log(own * float(fit.at(v, tokens)) * float(phi.at(v, tokens)))
    pairs = {(a.activation_ratio, a.granularity) for a in architectures}
    low, high = math.log(1e10), math.log(1e30)
    for _ in range(60):
        middle = (low + high) / 2
        best = max(float(fit(a, g, math.exp(middle))) for a, g in pairs)
        low, high = (low, middle) if middle + math.log(best) >= worth else (middle, high)
    return high + math.log(v.get("train_flops", "causal", tokens) / own)


@pytest.mark.parametrize("flops, memory", BUDGETS)
@pytest.mark.parametrize("names", [*((name,) for name in LAWS), LAWS], ids=lambda names: "+".join(names))
def test_search_equals_brute_force(flops: float, memory: str, names: tuple[str, ...]) -> None:
    """The search finds the design that a plain loop over exact architectures finds, with the same V."""
    assert_search_equals_brute_force(flops, memory, names)


@pytest.mark.parametrize("conditions", [{"fix": {"num_dense_layers": 0}}, {"ranges": {"num_dense_layers": (0, 1)}}])
def test_search_without_dense_layers_equals_brute_force(conditions: dict[str, object]) -> None:
    """So it does with experts in every layer, and where the first layer may have them or not."""
    found = assert_search_equals_brute_force(1e22, "80GB", LAWS, **conditions)
    if "fix" in conditions:
        assert found.num_dense_layers == 0


def assert_search_equals_brute_force(
    flops: float, memory: str, names: tuple[str, ...], **conditions: object
) -> Architecture:
    """The best design under conditions, having asserted that a plain loop finds it."""
    limit = budget(flops, memory, **conditions)
    reference = small_grid()
    grid = limit.grid(reference)
    space = Space(limit, laws(*names), base=reference, reference=reference)
    scores = space.score(flops)
    ln_value = scores.mean(space.laws)
    found = space.architecture(space.choose(ln_value, scores))

    candidates = []
    for architecture in every_architecture(grid):
        if total_inference_bytes(architecture, InferenceSettings()) > limit.usable_bytes:
            continue
        tokens = min(flops / architecture.flops_per_token(4096), 100e12)
        v = Variables(architecture, 4096)
        train = architecture.flops_per_token(4096) * tokens
        value = sum(float(ref.judge(v, tokens, train)) for ref in space.references) / len(names)
        attention = (
            6
            * 2
            * architecture.head_dim
            * (architecture.d_model * (architecture.num_heads + architecture.num_kv_heads) + 1)
            + 12 * architecture.num_heads * architecture.head_dim * 4096
        )
        share = attention / (attention + 18 * architecture.d_model * architecture.G * architecture.d_expert)
        shape = architecture
        integers = (shape.d_model, shape.num_layers, shape.num_heads, shape.num_experts, shape.num_active_experts,
                    shape.num_shared_experts, shape.d_expert, shape.num_dense_layers)  # fmt: skip
        aspect = abs(shape.d_model / shape.num_layers - 88)
        tie = (round(abs(share - 0.35) * 100), round(aspect), shape.total_params(), integers)
        candidates.append((value, tie, architecture, tokens))
    best = max(value for value, *_ in candidates)
    ties = [c for c in candidates if c[0] >= best + math.log1p(-TIE)]
    assert len(candidates) == int(scores.feasible.sum())
    assert float(ln_value.max()) == pytest.approx(best, abs=1e-9)
    assert found == min(ties, key=lambda c: c[1])[2]
    return found


@pytest.mark.parametrize("name", LAWS)
def test_reference_equals_exact_inversion(name: str) -> None:
    """The tabulated C_l is within .2 % of an exact inversion over all reference designs."""
    grid = small_grid(num_shared_experts=(1,))
    law = load_law(name)
    space = Space(budget(1e22, "80GB"), [law], base=grid, reference=grid)
    architectures = every_architecture(grid)
    rng = np.random.default_rng(7)
    for architecture in rng.choice(np.array(architectures, dtype=object), 5, replace=False):
        tokens = 1e22 / architecture.flops_per_token(4096)
        v = Variables(architecture, 4096)
        tabulated = float(space.references[0].judge(v, tokens, 1e22))
        if name == "tian2025":
            exact = exact_leverage_ln_compute(law, architectures, architecture, tokens)
        else:
            exact = exact_ln_compute(law, architectures, float(law.objective.at(v, tokens)))
        assert tabulated == pytest.approx(exact, abs=0.002)


def test_default_table_equals_exact_inversion() -> None:
    """On the default grid too, the tabulated C_l is within .2 % of bisection over every design that was not pruned."""
    space = Space(Budget("1e22", "80GB"), laws())
    for reference in space.references:
        if isinstance(reference, LossReference):
            for compute in np.geomspace(1e20, 1e23, 13):
                loss = reference._best(reference.table, compute)
                assert float(reference.ln_compute(loss)) == pytest.approx(math.log(compute), abs=0.002)


def test_loss_that_rises_with_compute_says_nothing_of_it() -> None:
    """Under a draw in which larger models and more tokens are worse no loss has a compute."""
    grid = Grid(d_model=(1024, 2048), aspect_ratio=(64,), num_experts=(16,), granularity=(4,))
    law = load_law("ludziejewski2025")
    space = Space(Budget("1e21", "80GB"), [law], base=grid, reference=grid)
    space.score(1e21)
    reference = space.references[0].around(44.0, 52.0)
    assert law.objective is not None
    rising = dict(law.objective.coefficients) | {"alpha": 0.2, "beta": 0.2}
    under = reference.under(dataclasses.replace(law.objective, coefficients=MappingProxyType(rising)))
    assert np.isnan(under.ln_compute(np.array([2.0, 3.0]))).all()


def test_pruning_loses_no_best_design() -> None:
    """R(C) of the pruned table is the least loss over every design of the grid, at any compute."""
    grid = small_grid(d_model=(512, 1024, 2048, 4096))
    for law in laws("zhao2025", "ludziejewski2025", "abnar2025", "krajewski2024"):
        reference = LossReference(law.objective, "causal")
        blocks = [Variables(block, 4096) for d in grid.d_model if (block := grid.block(d)) is not None]
        reference.finish([reference.collect(v) for v in blocks], 1e22, 1e22)
        for compute in np.geomspace(1e17, 1e27, 21):
            every = min(float(np.min(law.objective.at(v, compute / v.get("flops_per_token")))) for v in blocks)
            assert reference._best(reference.table, compute) == pytest.approx(every, rel=1e-12)


def test_bound_by_some_designs_loses_no_best_design() -> None:
    """R(C) is the same, to the bit, whether or not a few designs tell beforehand which others cannot be the best.

    That leaves less than a fiftieth of the designs.
    """
    grid = dataclasses.replace(Grid(), d_model=Grid().d_model[10:34:2])
    tables = [table for d in grid.d_model if (table := grid.product(d)) is not None]
    blocks = [DesignVariables(table, 4096) for table in tables]
    some = [DesignVariables(table.take(np.arange(0, len(table), 97)), 4096) for table in tables[::2]]
    for law in laws("zhao2025", "ludziejewski2025", "abnar2025", "krajewski2024"):
        every, bounded = (LossReference(law.objective, "causal") for _ in range(2))
        bounded.bound_by([bounded.columns(v) for v in some], 1e22)
        collected = [bounded.collect(v) for v in blocks]
        assert sum(columns.shape[1] for columns in collected) < 0.02 * sum(len(table) for table in tables)
        every.finish([every.collect(v) for v in blocks], 1e22, 1e22)
        bounded.finish(collected, 1e22, 1e22)
        while every.extend(3):
            bounded.extend(3)
        assert bounded._ln_compute[-1] == pytest.approx(math.log(1e8))
        assert np.array_equal(every._losses, bounded._losses)


@pytest.mark.parametrize("attention", ["gqa", "mla"])
@pytest.mark.parametrize("weight_dtype, devices, dense", [("bf16", 1, (1,)), ("fp8", 8, (1,)), ("bf16", 2, (0, 1))])
def test_counts_of_a_table_are_those_of_each_design(
    attention: str, weight_dtype: str, devices: int, dense: tuple[int, ...]
) -> None:
    """Params, FLOPs and bytes that a table finds at two depths are those of each architecture, to the last one."""
    settings = InferenceSettings(weight_dtype=weight_dtype)  # type: ignore[arg-type]
    for d_model in (512, 1024, 5120):
        tied = d_model == 512
        grid = Grid(attention=attention, attention_share=(0, 1), tied_embeddings=tied, num_dense_layers=dense)
        table = grid.product(d_model)
        assert table is not None
        v = DesignVariables(table, 4096)
        memory = table.count(lambda shape: total_inference_bytes(shape, settings, devices))
        designs = table.take(np.arange(len(table)))
        for place in np.random.default_rng(5).integers(len(table), size=25).tolist():
            architecture = designs.architecture(place)
            at = np.unravel_index(place, table.shape)
            assert int(memory[at]) == total_inference_bytes(architecture, settings, devices)
            assert float(v.get("total_params")[at]) == architecture.total_params()
            assert float(v.get("active_params")[at]) == architecture.active_params()
            assert float(v.get("flops_per_token")[at]) == architecture.flops_per_token(4096)


def test_partners_of_tokens_are_found() -> None:
    """Only ludziejewski2025's token term depends on another variable, its expansion ratio."""
    partners = {name: token_partners(load_law(name).objective) for name in (*LAWS[1:], "krajewski2024")}
    assert partners == {
        "zhao2025": (), "ludziejewski2025": ("expansion_ratio",), "abnar2025": (), "krajewski2024": ()
    }  # fmt: skip


# --- what must hold --------------------------------------------------------------------------------------------------


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.floats(18, 26), st.floats(0, 3), st.floats(9, 14), st.floats(0, 3), st.sampled_from([*range(len(LAWS)), None])
)
def test_looser_budget_never_lowers_value(
    flops: float, more: float, memory: float, room: float, one: int | None
) -> None:
    """More compute or memory never lowers the best V, of the mean or of a law, nor worsens a law's own best loss."""
    grid = small_grid(num_shared_experts=(1,))
    tight = (10**flops, int(10**memory))
    loose = (10 ** min(flops + more, 26.0), int(10 ** min(memory + room, 14.0)))
    results = []
    for compute, size in (tight, loose):
        try:
            space = make_space(budget(compute, str(size)), laws(), base=grid, reference=grid)
        except InfeasibleError:
            results.append(None)
            continue
        scores = space.score(compute)
        values = [float(scores.mean(space.laws if one is None else [space.laws[one]]).max())]
        losses = []
        for number, law in enumerate(laws()):
            if law.objective.predicts == "loss":
                every = np.concatenate(
                    [
                        np.broadcast_to(law.objective.at(b.variables, scores.tokens[start:stop]), stop - start)
                        for b, start, stop in zip(space.blocks, space._offsets, space._offsets[1:], strict=False)
                    ]
                )
                losses.append(float(np.where(scores.feasible, every, np.inf).min()))
            del number
        results.append((values, losses))
    before, after = results
    if before is None:
        return
    assert after is not None
    for low, high in zip(before[0], after[0], strict=True):
        assert high >= low - 1e-9
    for high, low in zip(before[1], after[1], strict=True):
        assert low <= high + 1e-12


def test_value_never_exceeds_budget() -> None:
    """On the reference grid itself no law finds more in a design than its compute."""
    space = Space(Budget("1e22", "80GB"), laws())
    scores = space.score(1e22)
    assert float(np.max(scores.ln_compute[:, scores.feasible])) <= math.log(1e22) + 1e-6


def test_threads_and_order_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, two threads and a shuffled grid choose the same design with the same scores."""

    def answer(threads: int) -> tuple[Architecture, float, float]:
        space = Space(Budget("1e21", "24GB"), laws(), threads=threads)
        scores = space.score(1e21)
        value = scores.mean(space.laws)
        index = space.choose(value, scores)
        return space.architecture(index), float(scores.tokens[index]), float(value[index])

    expected = answer(1)
    assert answer(2) == expected
    product = Grid.product
    rng = np.random.default_rng(3)

    def shuffled(self: Grid, d_model: int) -> Designs | None:
        designs = product(self, d_model)
        return None if designs is None else designs.take(rng.permutation(len(designs)))

    monkeypatch.setattr(Grid, "product", shuffled)
    assert answer(1) == expected


def test_default_grid_is_large() -> None:
    """At 1e22 FLOPs and 80 GB at least 1e5 designs of the default grid are feasible."""
    space = Space(Budget("1e22", "80GB"), laws("zhao2025"))
    assert int(space.score(1e22).feasible.sum()) >= 1e5


HALVED = (
    (1e19, "4GB"), (1e20, "16GB"), (1e20, "640GB"), (1e21, "24GB"), (1e21, "80GB"), (1e22, "24GB"), (1e22, "80GB"),
    (1e22, "640GB"), (1e23, "80GB"), (1e23, "640GB"), (1e24, "640GB"), (1e25, "2TB"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("flops, memory", HALVED)
def test_halving_every_step_gains_little(flops: float, memory: str) -> None:
    """Halving every step of the grid, as far as divisibility allows, raises the best V by less than .5 %."""
    limit = Budget(flops, memory)
    declared = limit.reference_grid()
    best = []
    for base in (declared, declared.halved()):
        space = Space(limit, laws(), base=base, reference=declared, threads=2)
        best.append(float(space.score(flops).mean(space.laws).max()))
    assert 0 <= best[1] - best[0] < math.log(1.005)


def test_halved_grid_contains_the_grid() -> None:
    """Halving keeps every value of every axis and adds at most one between two neighbours."""
    declared = Grid()
    halved = declared.halved()
    for axis in ("d_model", "aspect_ratio", "num_experts", "num_active_experts", "granularity"):
        before, after = getattr(declared, axis), getattr(halved, axis)
        assert all(min(abs(x / y - 1) for y in after) < 1e-9 for x in before)
        assert len(after) <= 2 * len(before)
        assert len(after) > len(before) or axis in ("num_experts",)


def test_law_that_cannot_trade_tokens_is_refused() -> None:
    """A law at fixed tokens cannot be maximised; the error says that it can be a second opinion."""
    with pytest.raises(MoeplanError, match="second opinion"):
        Space(Budget("1e22", "80GB"), laws("clark2022"))


# --- where the laws put the optimum ----------------------------------------------------------------------------------


def best_alone(name: str, convention: str, vocab_size: int = 256) -> Architecture:
    """The best design of one law at N = 36B and 1e22 FLOPs counted by `convention`."""
    conditions = Budget(1e22, "100TB", fix={"total_params": 36e9}, vocab_size=vocab_size)
    space = Space(conditions, laws(name), flops=convention, threads=2)
    return space.architecture(int(np.argmax(space.score(1e22).mean(space.laws))))


@pytest.mark.parametrize("name, percent", [("zhao2025", 7.3), ("abnar2025", 5.9)])
def test_single_laws_sit_where_they_put_themselves(name: str, percent: float) -> None:
    """At N = 36B and C = 6*Na*D = 1e22 the best N_a/N is zhao2025's 7.3 % and abnar2025's 5.9 %, within .7 points.

    These come from continuous sizes without embeddings, so the vocabulary is made too small to matter.
    """
    best = best_alone(name, "six_active_params")
    assert 100 * best.active_param_ratio == pytest.approx(percent, abs=0.7)


@pytest.mark.parametrize("name", ["zhao2025", "abnar2025"])
def test_exact_flops_favour_more_active_params(name: str) -> None:
    """With exact FLOPs the active ratio rises by under a point: attention scores cost FLOPs whatever N_a is.

    They raise the price of a token by the same amount for few and many active params, so many become cheaper by
    comparison.
    """
    by_params, exact = best_alone(name, "six_active_params"), best_alone(name, "causal")
    assert exact.flops_per_token(4096) > 6 * exact.active_params()
    assert 0 < exact.active_param_ratio - by_params.active_param_ratio < 0.01


def test_leverage_alone_runs_to_the_edge() -> None:
    """Without the discount for misallocation tian2025 runs to the fewest active and most experts: why phi is there."""
    space = Space(Budget("1e24", "640GB"), laws("tian2025"), allocation=False, threads=2)
    scores = space.score(1e24)
    edge = space.architecture(int(np.argmax(scores.mean(space.laws))))
    assert edge.activation_ratio < 0.0085
    kept = Space(Budget("1e24", "640GB"), laws("tian2025"), threads=2)
    scores = kept.score(1e24)
    inside = kept.architecture(int(np.argmax(scores.mean(space.laws))))
    assert inside.activation_ratio > 0.02
    assert inside.active_params() > 3 * edge.active_params()


# --- conditions ------------------------------------------------------------------------------------------------------


def chosen(conditions: Budget, *names: str) -> Architecture:
    """The design the search chooses."""
    space = make_space(conditions, laws(*names), threads=2)
    return choose_design(space, space.laws).architecture


@pytest.mark.parametrize(
    "name, value",
    [("num_experts", 128), ("num_active_experts", 6), ("num_layers", 30), ("d_model", 2560), ("d_expert", 1024),
     ("num_heads", 32), ("G", 9), ("G", 17), ("num_shared_experts", 2)],
)  # fmt: skip
def test_fixed_integers_are_met_exactly(name: str, value: int) -> None:
    """A fixed integer variable has exactly its value in the plan."""
    assert getattr(chosen(Budget("1e22", "80GB", fix={name: value}), "zhao2025"), name) == value


@pytest.mark.parametrize(
    "name, value",
    [("granularity", 8.0), ("activation_ratio", 1 / 32), ("expansion_ratio", 20.0), ("active_param_ratio", 0.06),
     ("shared_ratio", 0.25), ("attention_share", 0.5)],
)  # fmt: skip
def test_fixed_real_values_are_met_within_two_percent(name: str, value: float) -> None:
    """A fixed real variable is realised within 2 %."""
    conditions = Budget("1e22", "80GB", fix={name: value})
    space = Space(conditions, laws("zhao2025"), threads=2)
    scores = space.score(1e22)
    index = np.array([space.choose(scores.mean(space.laws), scores)])
    assert float(space.values(name, index, scores)[0]) == pytest.approx(value, rel=0.02)


@pytest.mark.parametrize("name, low, high", [("total_params", 10e9, 12e9), ("num_experts", 32, 64), ("G", 5, 6)])
def test_ranges_hold(name: str, low: float, high: float) -> None:
    """A bounded variable stays inside its range."""
    design = chosen(Budget("1e22", "80GB", ranges={name: (low, high)}), "zhao2025")
    value = getattr(design, name)
    assert low <= (value() if callable(value) else value) <= high


@pytest.mark.parametrize(
    "fix, message",
    [
        ({"num_experts": 60}, "multiple of 8; nearest are 56 and 64"),
        ({"total_params": 500e9}, "nearest is"),
        ({"num_experts": 64, "activation_ratio": 0.5}, "nearest is 0.1875"),
        ({"shared_ratio": 0.9}, "nearest is"),
    ],
)
def test_impossible_values_name_the_nearest(fix: dict[str, float], message: str) -> None:
    """A value that no design has ends in one sentence with the nearest that one has."""
    with pytest.raises(InfeasibleError, match=message):
        chosen(Budget("1e22", "80GB", fix=fix), "zhao2025")


def test_memory_too_small_names_the_smallest() -> None:
    """A memory limit below the smallest design names what would do, and that does."""
    with pytest.raises(InfeasibleError, match=r"the smallest needs [0-9.]+MB") as error:
        chosen(Budget("1e22", "100MB"), "zhao2025")
    enough = str(error.value).split("smallest needs ")[1].split(",")[0]
    assert chosen(Budget("1e22", enough), "zhao2025").total_params() > 0


def test_fixed_tokens_leave_the_rest_of_the_budget() -> None:
    """With tokens fixed, the model is as large as the budget allows at those tokens."""
    conditions = Budget("1e22", "640GB", fix={"tokens": 300e9})
    space = Space(conditions, laws(), threads=2)
    scores = space.score(1e22)
    index = space.choose(scores.mean(space.laws), scores)
    assert scores.tokens[index] == 300e9
    assert 0.9e22 < scores.train_flops[index] <= 1e22


def test_served_tokens_are_paid_from_the_budget() -> None:
    """Training plus 2*N_a per served token is the budget, and the model gets fewer active params."""
    conditions = Budget("1e22", "80GB", inference_tokens=1e12)
    space = Space(conditions, laws(), threads=2)
    scores = space.score(1e22)
    index = space.choose(scores.mean(space.laws), scores)
    served = 2 * space.architecture(index).active_params() * 1e12
    assert scores.train_flops[index] + served == pytest.approx(1e22, rel=1e-9)
    assert space.architecture(index).active_params() < chosen(Budget("1e22", "80GB")).active_params()


def test_few_tokens_are_repeated_at_a_discount() -> None:
    """With 100B unique tokens at most four epochs are used, and V is no larger than with unlimited ones."""
    free, scarce = Budget("1e22", "80GB"), Budget("1e22", "80GB", tokens_available=100e9)
    best = []
    for conditions in (free, scarce):
        space = Space(conditions, laws(), threads=2)
        scores = space.score(1e22)
        index = space.choose(scores.mean(space.laws), scores)
        best.append((float(scores.mean(space.laws).max()), scores.tokens[index]))
    assert best[1][1] <= 400e9
    assert best[1][0] < best[0][0]


def test_grid_digest_tells_grids_apart() -> None:
    """The digest depends on every axis."""
    digests = {Grid().digest, Grid(seq_len=8192).digest, dataclasses.replace(Grid(), num_experts=(64,)).digest}
    assert len(digests) == 3


def test_fixes_that_cannot_go_together_are_named() -> None:
    """Of three fixes the two that clash are named, not the third; the fixes are too large, not the grid."""
    with pytest.raises(InfeasibleError, match=r"num_experts=512, d_model=8192: the smallest needs"):
        recommend(Budget("1e22", "80GB", fix={"num_experts": 512, "d_model": 8192}), alternatives=0)
    with pytest.raises(InfeasibleError) as error:
        recommend(Budget("1e22", "80GB", fix={"num_layers": 30, "num_experts": 8, "num_active_experts": 12}))
    assert "num_experts=8" in str(error.value)
    assert "num_layers" not in str(error.value)
