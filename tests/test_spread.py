"""Intervals of a plan under a fitted law: the optimum of every draw, exactly, and what it comes to."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from moeplan import Budget
from moeplan.architecture.conventions import Variables
from moeplan.errors import LawError
from moeplan.fitting.bootstrap import bootstrap
from moeplan.fitting.problem import make_problem
from moeplan.fitting.solve import solve
from moeplan.laws import Law, load_law
from moeplan.laws.draws import DRAWS, Drawn, drawn_law, law_draws
from moeplan.laws.law import ResidualError
from moeplan.laws.leverage import leverage_by
from moeplan.numerics.branch_and_bound import Boxes, cells
from moeplan.plan.assembly import assemble
from moeplan.plan.choice import Choice, choose_design
from moeplan.plan.document import Plan
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.search.grid import Grid
from moeplan.plan.search.scores import Scores
from moeplan.plan.search.space import Space
from moeplan.plan.uncertainty.drawn import LEVEL, DrawnLaw, draw
from moeplan.plan.uncertainty.redraw import designs_ln_compute, drawn_ln_compute, plan_uncertainty, redraw
from moeplan.plan.uncertainty.result import PlanUncertainty
from moeplan.studies.comparison import compare
from tests.drawn_laws import correlated, drawn_as, uncertain, write_drawn
from tests.fitting_truths import predictions
from tests.small import VOCAB, small_grid

COVERAGE_SEED = 20_260_402
"""Fixed before the first run of the test of coverage, and not to be changed."""
TRIALS = 60
LAW = "ludziejewski2025"


def small_space(laws: list[Law], budget: Budget, grid: Grid | None = None) -> Space:
    """The small grid (or another), judged by laws as they are."""
    base = grid or small_grid()
    return Space(budget, laws, base=base, reference=base)


def small_choice(laws: list[Law], budget: Budget, grid: Grid | None = None) -> Choice:
    """The best of the small grid."""
    return choose_design(small_space(laws, budget, grid), laws)


def small_budget(flops: float = 1e21, memory: str = "80GB", **more: Any) -> Budget:
    """A budget of the small grid's vocabulary."""
    return Budget(flops, memory, vocab_size=VOCAB, tied_embeddings=True, **more)


def uncertainty_of(choice: Choice, **more: Any) -> PlanUncertainty:
    """The intervals of an choice that has some."""
    found = plan_uncertainty(choice, **more)
    assert found is not None
    return found


def test_boxes_find_what_asking_everything_finds() -> None:
    """Over random points, functions that rise and fall in every coordinate, or turn around, and any addend."""
    rng = np.random.default_rng(5)
    columns = np.exp(rng.uniform(0, 6, (3, 4000)))
    columns[2] = rng.integers(1, 9, 4000)
    for trial in range(30):
        power = rng.normal(0, 0.4, 3)
        turn = rng.uniform(1, 5)
        addend = rng.normal(0, 0.1, 4000)

        def function(x: Any, power: Any = power, turn: float = turn) -> Any:
            return power @ np.log(x) - 0.3 * (np.log(x[0]) - turn) ** 2

        everything = function(columns) + addend
        within = (0.0, 0.005, 0.3)[trial % 3]
        found, values = Boxes(columns, addend).near(function, float(everything[rng.integers(4000)]), within)
        assert found.tolist() == np.flatnonzero(everything >= everything.max() - within).tolist()
        assert values == pytest.approx(everything[found], abs=1e-12)


def test_boxes_open_where_a_corner_has_no_value() -> None:
    """A function without a value at a box's corner may still be best inside it."""
    columns = np.array([np.geomspace(1, 1.2, 50), np.geomspace(1, 1.2, 50)])
    only = columns[0] * columns[1]

    def function(x: Any) -> Any:
        return np.where(np.isclose(x[0], x[1], rtol=1e-12), np.log(x[0] * x[1]), np.nan)

    found, _ = Boxes(columns, np.zeros(50)).near(function, float(np.log(only[3])), 1e-9)
    assert found.tolist() == [49]


def test_boxes_find_the_best_of_a_function_that_no_corner_shows() -> None:
    """A ridge between the corners of all boxes, far above them, is found, since a design on it is known."""
    columns = np.array([np.geomspace(1, 1.03, 101), np.ones(101)])

    def function(x: Any) -> Any:
        return -np.abs(np.log(x[0] / columns[0, 50]))

    found, values = Boxes(columns, np.zeros(101)).near(function, -1e-9, 1e-12)
    assert found.tolist() == [50]
    assert values.tolist() == [0.0]


def test_cells_keep_distinct_values_of_few_apart() -> None:
    """A coordinate of few values gets a cell for each; one of many gets cells of the width."""
    columns = np.array([[1.0, 1.001, 1.0, 1.002], [1.0, 1.0, 2.0, 1.0]])
    codes = cells(columns, 0.5)
    assert len(np.unique(codes)) == 4
    many = np.geomspace(1, 100, 1000)[None]
    assert len(np.unique(cells(many, 0.5))) == pytest.approx(np.log(100) / 0.5, abs=1)


PANELS = (
    ([LAW], 0.1, 1e21, "80GB"),
    ([LAW], 0.2, 1e23, "640GB"),
    (["zhao2025"], 0.1, 1e21, "80GB"),
    (["krajewski2024"], 0.2, 1e20, "24GB"),
    (["abnar2025"], 0.2, 1e22, "80GB"),
    (["tian2025"], 0.1, 1e21, "80GB"),
    (["zhao2025", "tian2025", LAW], 0.1, 1e22, "80GB"),
)


@pytest.mark.parametrize(("names", "deviation", "flops", "memory"), PANELS)
def test_every_draw_is_searched_exactly(names: list[str], deviation: float, flops: float, memory: str) -> None:
    """Under each of 50 draws the design is the one that a whole new search with the drawn law chooses.

    The search rebuilds grid, references and scores. The regret, read from curves over few designs, agrees to .2 % of V,
    or to a hundredth of its logarithm where it is large.
    """
    budget = small_budget(flops, memory)
    laws = [uncertain(names[0], deviation), *(uncertain(name, deviation) for name in names[1:2])]
    laws += [load_law(name) for name in names[2:]]
    choice = small_choice(laws, budget)
    draws: dict[str, dict[str, Drawn]] = {law.full_name: law_draws(law) for law in laws}
    found = redraw(choice, draws, 50)
    assert found.unusable == 0
    for place in range(50):
        drawn = [drawn_law(law, draws[law.full_name], place) for law in laws]
        space = small_space(drawn, budget)
        scores = space.score(budget.flops)
        value = scores.mean(space.laws)
        assert space.choose(value, scores) == found.chosen[place]
        regret = float(value.max() - value[choice.index])
        assert found.regret[place] == pytest.approx(regret, rel=0.01, abs=0.002)


def test_without_uncertainty_there_is_the_plan_alone() -> None:
    """A covariance of zeros gives intervals of no width, at the plan, and no regret."""
    law = uncertain(LAW, 0.0)
    choice = small_choice([law], small_budget())
    found = uncertainty_of(choice, count=20)
    for row in found.variables:
        assert row.low == row.median == row.high == row.value
    (own,) = found.laws
    assert own.loss.low == pytest.approx(own.loss, rel=1e-12)
    assert own.loss.high == pytest.approx(own.loss, rel=1e-12)
    assert own.leverage_low == pytest.approx(own.efficiency_leverage, rel=1e-9)
    assert own.run_low is None  # the file does not say how the runs scatter
    assert found.same_design == 1
    assert found.efficiency_low == pytest.approx(choice.design.value / np.exp(choice.best_ln_value), rel=1e-9)


def test_wider_covariances_give_wider_intervals() -> None:
    """Twice the deviations never narrow an interval by more than the draws' own scatter, and widen most."""
    widths = []
    for deviation in (0.02, 0.04, 0.08):
        law = uncertain(LAW, deviation)
        found = uncertainty_of(small_choice([law], small_budget()))
        (own,) = found.laws
        assert own.loss.low and own.loss.high and own.leverage_low and own.leverage_high  # noqa: PT018  # for mypy
        sizes = next(row for row in found.variables if row.variable == "active_params")
        widths.append((own.loss.high - own.loss.low, own.leverage_high / own.leverage_low, sizes.high / sizes.low))
    for narrow, wide in itertools.pairwise(widths):
        assert wide[0] > 1.5 * narrow[0]
        assert wide[1] > narrow[1]
        assert wide[2] >= narrow[2]


def test_the_runs_scatter_widens_what_a_run_measures() -> None:
    """With coefficients known exactly, one run's loss scatters by the residual alone: +-1.645*rms at 90 %."""
    law = uncertain(LAW, 0.0)
    of = law.objective
    assert of is not None
    of = dataclasses.replace(of, residual=ResidualError(0.01, 10_000))
    law = dataclasses.replace(law, fits=MappingProxyType({**law.fits, of.name: of}))
    (own,) = uncertainty_of(small_choice([law], small_budget()), count=200).laws
    assert own.loss and own.run_low and own.run_high  # noqa: PT018  # for mypy
    assert np.log(own.run_high / own.loss) == pytest.approx(1.645 * 0.01, rel=0.05)
    assert np.log(own.run_low / own.loss) == pytest.approx(-1.645 * 0.01, rel=0.05)


def test_leverage_under_draws_is_the_laws_own_formula() -> None:
    """EL over tables agrees with the law's leverage, found by bisection under each drawn law, to .1 %."""
    law = correlated(LAW, 0.05, 2)
    choice = small_choice([law], small_budget())
    v = Variables(choice.architecture, choice.budget.seq_len)
    drawn = draw(law)
    assert drawn is not None
    found = drawn.leverages(v, choice.tokens)
    assert found is not None
    for place in range(40):
        exact = leverage_by(drawn_law(law, drawn.draws, place), v, choice.tokens).efficiency_leverage
        assert found[place] == pytest.approx(exact, rel=1e-3)


def test_a_line_under_draws_is_the_laws_own_judgement() -> None:
    """C_l of given designs under a draw agrees with a new search's, up to a factor that is common to them."""
    law = uncertain("abnar2025", 0.05)
    budget = small_budget()
    choice = small_choice([law], budget)
    drawn = DrawnLaw(law, law_draws(law, 10))
    best = np.argsort(-choice.ln_value)[:8]
    found = drawn_ln_compute(choice, drawn, best)
    for place in range(10):
        scores = small_space([drawn_law(law, drawn.draws, place)], budget).score(budget.flops)
        own = scores.ln_compute[0, best]
        assert found[place] - found[place, 0] == pytest.approx(own - own[0], abs=0.005)


@pytest.mark.parametrize("name", [LAW, "abnar2025", "tian2025"])
def test_compute_under_draws_is_a_new_searchs(name: str) -> None:
    """C_l of designs of far budgets under a draw, judged together, is that of a search with the drawn coefficients."""
    law = uncertain(name, 0.05)
    budgets = [small_budget(flops, "10GB") for flops in (1e20, 1e21, 1e22)]
    space = Space(budgets[-1], [law], base=small_grid(), reference=small_grid(), span=(1e20, 1e22))
    designs, chosen = [], []
    for budget in budgets:
        choice = choose_design(space.at(budget), [law])
        v = Variables(choice.architecture, budget.seq_len)
        designs.append((v, float(choice.tokens), float(v.get("flops_per_token", space.flops)) * choice.tokens))
        chosen.append(choice.index)
    drawn = DrawnLaw(law, law_draws(law, 5))
    found = designs_ln_compute(space.references[0], drawn, designs)
    for place in range(5):
        under = Space(budgets[-1], [drawn_law(law, drawn.draws, place)], base=small_grid(), reference=small_grid())
        exact = [float(under.at(b).score(b.flops).ln_compute[0, i]) for b, i in zip(budgets, chosen, strict=True)]
        assert found[place] == pytest.approx(exact, abs=0.03)


def test_draws_without_a_number_are_left_out_and_half_of_them_refused() -> None:
    """Draws that overflow are counted; a covariance under which most do is refused in one sentence."""
    law = load_law(LAW)
    of = law.objective
    assert of is not None
    columns = {name: np.full(40, value) for name, value in of.coefficients.items()}
    columns["c"][:10] = np.nan
    choice = small_choice([drawn_as(law, columns)], small_budget())
    found = uncertainty_of(choice, count=40)
    assert found.unusable == 10
    columns["c"][:30] = np.nan
    with pytest.raises(LawError, match="gives no finite number for the plan under 30 of 40 draws"):
        plan_uncertainty(small_choice([drawn_as(law, columns)], small_budget()), count=40)


def test_threads_change_nothing_and_laws_without_draws_are_named() -> None:
    """The intervals are the same for one thread or two; a law without draws is held, and said to be."""
    laws = [uncertain(LAW, 0.05), load_law("zhao2025")]
    budget = small_budget()
    found = []
    for threads in (1, 2):
        space = Space(budget, laws, base=small_grid(), reference=small_grid(), threads=threads)
        found.append(uncertainty_of(choose_design(space, laws)))
    assert found[0] == found[1]
    assert found[0].held == ("zhao2025",)
    assert [one.law for one in found[0].laws] == [LAW]
    assert found[0].level == LEVEL


def test_bundled_laws_make_no_intervals() -> None:
    """Without a covariance there is nothing to draw, and the plan says null."""
    laws = [load_law(LAW), load_law("zhao2025")]
    choice = small_choice(laws, small_budget())
    assert plan_uncertainty(choice) is None
    plan = assemble(choice, LawSelection(tuple(laws), ()))
    assert plan.spread is None
    assert plan.to_json()["spread"] is None


def test_a_plan_keeps_its_intervals_in_its_file() -> None:
    """A plan with intervals is read back as it was written, to JSON's digits."""
    law = uncertain(LAW, 0.05)
    plan = assemble(small_choice([law], small_budget()), LawSelection((law,), ()))
    again = Plan.from_json(plan.to_json())
    assert again.spread is not None
    assert again.to_json() == plan.to_json()
    assert {row.variable for row in again.spread.variables} == {band.variable for band in plan.bands}


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    """90 % intervals cover what the true law says in at least 83 % of 60 simulated teams, and not in all of them.

    Each team measures 90 runs of ludziejewski2025 with 1 % noise, fits the form, and asks for a plan at 4 times the
    compute of its largest run; the truth is asked for the loss and leverage of that team's plan, and for its own best
    design. Designs are discrete, which makes intervals of variables cover more.
    """
    truth = load_law(LAW)
    of = truth.objective
    assert of is not None
    rows = [(n, n * t, e) for e in (1, 2, 4, 8, 16, 32) for n in np.geomspace(5e7, 3e9, 5) for t in (3, 12, 50)]
    design = dict(zip(("active_params", "tokens", "expansion_ratio"), np.array(rows, dtype=float).T, strict=True))
    clean = predictions(of.form, design, of.coefficients)
    grid = Grid(
        granularity=(4.0,),
        num_active_experts=(8,),
        aspect_ratio=tuple(range(64, 113, 4)),
        attention_width=(1.0, 1.0),
        vocab_size=VOCAB,
        tied_embeddings=True,
    )
    budget = small_budget(1e22)
    true = small_choice([truth], budget, grid)
    here = np.array([true.index])
    names = ("active_params", "expansion_ratio", "tokens")
    wanted = {name: float(true.space.values(name, here, true.scores)[0]) for name in names}
    noise = 0.01 * np.random.default_rng(COVERAGE_SEED).standard_normal((TRIALS, len(clean)))
    covered: dict[str, int] = dict.fromkeys((*names, "loss", "leverage"), 0)
    for trial in range(TRIALS):
        problem = make_problem(of.form, design, clean * np.exp(noise[trial]))
        fitted = solve(problem, problem.coordinates(of.coefficients)[None], tolerance=1e-7).y
        own = {name: float(x) for name, x in problem.coefficients(fitted[0]).items()}
        changed = dataclasses.replace(of, coefficients=MappingProxyType(own))
        draws = problem.coefficients(bootstrap(problem, fitted, 200, seed=trial).y)
        law = drawn_as(dataclasses.replace(truth, fits=MappingProxyType({**truth.fits, of.name: changed})), draws)
        choice = small_choice([law], budget, grid)
        found = uncertainty_of(choice)
        for row in found.variables:
            if row.variable in wanted:
                covered[row.variable] += row.low <= wanted[row.variable] <= row.high
        v = Variables(choice.architecture, budget.seq_len)
        (one,) = found.laws
        assert one.loss.low and one.loss.high and one.leverage_low and one.leverage_high  # noqa: PT018  # for mypy
        covered["loss"] += one.loss.low <= float(of.at(v, choice.tokens)) <= one.loss.high
        exact = leverage_by(truth, v, choice.tokens).efficiency_leverage
        covered["leverage"] += one.leverage_low <= exact <= one.leverage_high
    print(covered)
    shares = {name: count / TRIALS for name, count in covered.items()}
    assert min(shares.values()) >= 0.83, shares
    assert shares["leverage"] <= 0.97, shares
    assert shares["loss"] <= 0.97, shares


def test_compare_gives_fitted_laws_their_interval(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fitted law's column holds an interval around each ratio, the bundled laws' columns none of this kind.

    The optimum is not sought under every draw, since a comparison shows no intervals of the plan.
    """
    sought: list[Any] = []
    monkeypatch.setattr("moeplan.plan.uncertainty.redraw.redraw", lambda *args: sought.append(args))
    path = write_drawn(tmp_path / "own.yaml", LAW)
    found = compare(Budget("1e21", "24GB", fix={"num_active_experts": 8, "num_experts": 64}), laws=[str(path)])
    assert not sought
    by_law = {column.law: column for column in found.laws}
    assert by_law["own"].draws == DRAWS
    for one in by_law["own"].answers:
        assert one.ratio is not None
        assert one.ratio.low is not None
        assert one.ratio.high is not None
        assert one.ratio.low < one.ratio < one.ratio.high
    assert all(column.draws == 0 for name, column in by_law.items() if name != "own")


def test_scores_are_left_alone() -> None:
    """Redrawing changes neither the scores nor the references of the choice."""
    law = uncertain(LAW, 0.1)
    choice = small_choice([law], small_budget())
    arrays = {f.name: getattr(choice.scores, f.name) for f in dataclasses.fields(Scores) if f.name != "laws"}
    assert {name for name, array in arrays.items() if array is None} == {"tokens_per_second"}  # no time is asked for
    before = {name: copy.deepcopy(array) for name, array in arrays.items()}
    own = choice.space.references[0].ln_compute(np.array([2.2, 2.4]))  # type: ignore[union-attr]
    uncertainty_of(choice)
    assert all(np.array_equal(before[name], getattr(choice.scores, name)) for name in before)
    assert (choice.space.references[0].ln_compute(np.array([2.2, 2.4])) == own).all()  # type: ignore[union-attr]
