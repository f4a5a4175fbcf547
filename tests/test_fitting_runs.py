"""Runs files: names and aliases, what is computed, what is left out, and every kind of bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeplan.architecture.shape import Architecture
from moeplan.errors import InfeasibleError, MoeplanError, UsageError
from moeplan.fitting import fit
from moeplan.fitting.names import name_columns
from moeplan.fitting.reading import read_runs
from moeplan.fitting.sufficiency import check, unseen_quantities
from moeplan.fitting.table import read_table
from moeplan.report.screen.fitting import fit_screen

SIZES = (1e8, 3e8, 1e9, 3e9)
HEADER = "N,D,loss"
ROWS = [(n, n * t, 1.8 + 480 * n**-0.35 + 2100 * (n * t) ** -0.37) for n in SIZES for t in (5, 20, 80)]
"""Twelve runs of a dense law."""


def write(path: Path, rows: list[Any], header: str = HEADER) -> str:
    """Rows as a CSV file."""
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def runs_file(tmp_path: Path) -> str:
    """The twelve runs."""
    return write(tmp_path / "runs.csv", ROWS)


def test_letters_and_long_names_mean_the_same(tmp_path: Path) -> None:
    """N, "Model Size", "Training tokens", "Training FLOP" and others have glossary names; case of letters matters."""
    found = name_columns(["Model Size", "Training tokens", "Training FLOP", "loss_validation", "e", "color"], {}, "f")
    assert dict(found.columns) == {
        "total_params": "Model Size",
        "tokens": "Training tokens",
        "train_flops": "Training FLOP",
        "loss": "loss_validation",
    }
    assert name_columns(["N", "D", "C"], {}, "f").columns["train_flops"] == "C"
    assert found.aliases["loss"] == "loss_validation"


def test_a_name_may_state_the_convention() -> None:
    """active_nonemb holds active params, counted without embeddings."""
    found = name_columns(["active_nonemb", "total_params_non_embedding"], {}, "f")
    assert dict(found.columns) == {
        "active_params": "active_nonemb",
        "total_params": "total_params_non_embedding",
    }
    assert dict(found.conventions) == {"active_params": "non_embedding", "total_params": "non_embedding"}


def test_a_given_name_wins_over_an_alias() -> None:
    """--map takes any column, and the column then means nothing else."""
    found = name_columns(["params", "width_sum"], {"total_params": "width_sum"}, "f")
    assert dict(found.columns) == {"total_params": "width_sum"}


def test_compute_size_and_tokens_give_one_another(tmp_path: Path) -> None:
    """C = 6*Na*D in any direction, and it is said which was computed."""
    rows = [(n, 6 * n * d, loss) for n, d, loss in ROWS]
    runs = read_runs(write(tmp_path / "runs.csv", rows, "N,C,loss"))
    np.testing.assert_allclose(runs.column("tokens"), [d for _, d, _ in ROWS])
    assert runs.derived["tokens"] == "train_flops / (6*Na)"
    runs = read_runs(write(tmp_path / "runs.csv", ROWS))
    np.testing.assert_allclose(runs.column("train_flops"), [6 * n * d for n, d, _ in ROWS])


def test_ratios_follow_from_experts(tmp_path: Path) -> None:
    """64 experts, 4 active and 1 shared: expansion 65/5, A 1/16, G 5, S 1/5; a dense run stands at 1."""
    header = "active_params,tokens,num_experts,top_k,num_shared_experts,loss"
    rows = [(1e8, 1e9, 64, 4, 1, 3.0), (1e8, 1e9, 1, 1, 0, 3.2)]
    runs = read_runs(write(tmp_path / "runs.csv", rows, header))
    expected = {"expansion_ratio": (13, 1), "activation_ratio": (1 / 16, 1), "G": (5, 1), "shared_ratio": (0.2, 0)}
    for name, values in expected.items():
        np.testing.assert_allclose(runs.column(name), values)
    assert runs.says_moe
    assert runs.column("total_params") is None, "nothing says how many params there are besides the active ones"


def test_params_are_counted_on_architectures(tmp_path: Path) -> None:
    """Runs that name their shapes are counted exactly, in the convention asked for, in CSV as in JSON lines."""
    moe = Architecture(
        d_model=256, num_layers=4, vocab_size=1000, num_heads=4, num_experts=8, num_active_experts=2, d_expert=128
    )
    dense = Architecture(d_model=256, num_layers=4, vocab_size=1000, num_heads=4, d_ff=512)
    lines = [
        json.dumps({"architecture": shape.to_dict(), "tokens": 1e9, "seq_len": 512, "loss": 3.0})
        for shape in (moe, dense)
    ]
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    runs = read_runs(path, conventions={"total_params": "non_embedding", "train_flops": "non_embedding_full_attention"})
    np.testing.assert_array_equal(
        runs.column("total_params"), [moe.total_params("non_embedding"), dense.total_params("non_embedding")]
    )
    np.testing.assert_array_equal(runs.column("active_params"), [moe.active_params(), dense.active_params()])
    flops = [shape.flops_per_token(512, attention="full", logits=False) * 1e9 for shape in (moe, dense)]
    np.testing.assert_allclose(runs.column("train_flops"), flops)
    np.testing.assert_allclose(runs.column("granularity"), [4, 1])
    assert "counted on each run's architecture" in runs.derived["total_params"]


def test_json_lines_and_csv_are_the_same_runs(tmp_path: Path, runs_file: str) -> None:
    """The same numbers give the same law, whatever the file."""
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(json.dumps(dict(zip(("N", "D", "loss"), row, strict=True))) for row in ROWS))
    laws = [fit(file, "additive_power_law", draws=0).values for file in (runs_file, path)]
    assert laws[0] == laws[1]


def test_rules_leave_runs_out_and_say_so(tmp_path: Path) -> None:
    """Comparisons of numbers and text, with the line and the reason of each run left out."""
    rows = [(n, d, loss, "dense" if i % 2 else "moe", i) for i, (n, d, loss) in enumerate(ROWS)]
    path = write(tmp_path / "runs.csv", rows, "N,D,loss,kind,try")
    runs = read_runs(path, where=["kind=dense,other"], exclude=["loss>3.5", "try=11"])
    assert [runs.table.rows[i]["kind"] for i in runs.rows] == ["dense"] * runs.count
    reasons = {x.line: x.reason for x in runs.excluded}
    assert reasons[2] == "--where kind=dense,other (it is moe)"
    assert reasons[13] == "--exclude try=11 (it is 11)"
    assert runs.count + len(reasons) == 12
    assert max(runs.column("loss")) <= 3.5


def test_the_highest_losses_can_be_dropped(runs_file: str) -> None:
    """The runs of the three highest losses, and no others, are left out."""
    runs = read_runs(runs_file, drop_highest_loss=3)
    highest = sorted((loss for *_, loss in ROWS), reverse=True)[:3]
    assert runs.count == 9
    assert max(runs.column("loss")) < min(highest)
    assert all("--drop-highest-loss 3" in x.reason for x in runs.excluded)


def test_what_all_runs_have_may_be_given(tmp_path: Path) -> None:
    """Tokens that stand in no column, but are the same for all, give the compute."""
    runs = read_runs(write(tmp_path / "runs.csv", [(n, 2.5) for n in SIZES], "N,loss"), fixed={"tokens": 1e11})
    np.testing.assert_allclose(runs.column("train_flops"), [6e11 * n for n in SIZES])
    moe = read_runs(write(tmp_path / "m.csv", [(n, 2.5) for n in SIZES], "Na,loss"), fixed={"num_experts": 64})
    assert moe.says_moe
    assert moe.column("total_params") is None


BAD: list[tuple[str, str, list[str]]] = [
    ("N,loss\n1e9,2.5\n", "additive_power_law", ["no column tokens", "N, loss", "--map"]),
    ("N,D\n1e9,1e10\n", "additive_power_law", ["no column loss", "N, D"]),
    ("N,N,D,loss\n1,1,1,1\n", "additive_power_law", ["'N' twice"]),
    ("N,total_params,D,loss\n1,1,1,1\n", "additive_power_law", ["'N' and 'total_params' both mean total_params"]),
    ("N,D,loss\n1e9,1e10,2.5\nbig,1e10,2.4\n", "additive_power_law", ["line 3", "'N'", "'big'"]),
    ("N,D,loss\n1e9,1e10,2.5\n1e9,,2.4\n", "additive_power_law", ["line 3", "'D'", "empty"]),
    ("N,D,loss\n1e9,1e10,-2.5\n", "additive_power_law", ["line 2", "'loss'", "-2.5", "above 0"]),
    ("N,D,loss\n1e9,1e10,nan\n", "additive_power_law", ["line 2", "'loss'", "nan", "finite"]),
    ("N,D,loss\n1e9,0,2\n", "additive_power_law", ["line 2", "'D'", "above 0"]),
    ("N,D,loss\n1e9,1e10\n", "additive_power_law", ["line 2", "2 cells", "3"]),
    ("N,D,\n1e9,1e10,2\n", "additive_power_law", ["column 3 has no name"]),
    ("N,D,loss\n", "additive_power_law", ["no runs"]),
    ("", "additive_power_law", ["empty"]),
    ("\0\0", "additive_power_law", ["not text"]),
    ('{"N": 1}\n{"N": \n', "additive_power_law", ["line 2", "not JSON"]),
    (f'{{"N": {"9" * 5000}}}\n', "additive_power_law", ["line 1", "not JSON"]),
    ('{"N": 1, "N": 2}\n', "additive_power_law", ["'N' twice"]),
    ("[1, 2]\n", "additive_power_law", ["must be an object"]),
    ("N,D,loss\n1e9,1e10,2.5\n", "zhao2025", ["no column", "active_shared_joint"]),
    ("N,D,loss\n1e9,1e10,2.5\n", "no_such_form", ["no_such_form", "neither a form nor a law"]),
    ("N,D,loss\n1e9,1e10,2.5\n", "li2025", ["li2025", "has no form"]),
]


@pytest.mark.parametrize("text, form, says", BAD)
def test_files_that_are_no_runs_are_refused_with_the_place(
    tmp_path: Path, text: str, form: str, says: list[str]
) -> None:
    """Exit code 2, one sentence with the file's line and column and what stands there."""
    path = tmp_path / "runs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        fit(path, form)
    assert error.value.exit_code == 2
    for part in says:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


INSUFFICIENT: list[tuple[list[Any], str, str, list[str]]] = [
    (ROWS[:4], HEADER, "additive_power_law", ["4 runs", "5 coefficients"]),
    (
        [(n, 1e21 / 6 / n, 2 + 1e3 * n**-0.4) for n in np.geomspace(1e8, 1e10, 9)],
        HEADER,
        "additive_power_law",
        ["one budget", "1e+21"],
    ),
    (
        [(1e9, 1e10, g, 2 + 0.1 / g) for g in (1, 2, 4, 8, 16, 32)],
        "N,D,granularity,loss",
        "additive_power_law",
        ["does not see granularity", "same in all 6 runs"],
    ),
    ([(n, d, 8, loss) for n, d, loss in ROWS], "N,D,granularity,loss", "fine_grained", ["granularity is the same"]),
    ([(1e9, 1e10, g, 2 + 0.1 / g) for g in (1, 2, 4, 8)], "N,D,granularity,loss", "auto", ["no form"]),
]


@pytest.mark.parametrize("rows, header, form, says", INSUFFICIENT)
def test_runs_that_cannot_determine_the_form_are_refused(
    tmp_path: Path, rows: list[Any], header: str, form: str, says: list[str]
) -> None:
    """Exit code 1, one sentence that says what the runs lack and what would do."""
    with pytest.raises(InfeasibleError) as error:
        fit(write(tmp_path / "runs.csv", rows, header), form)
    assert error.value.exit_code == 1
    for part in says:
        assert part in str(error.value)


BAD_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"draws": 3}, "draws 3"),
    ({"draws": True}, "draws True"),
    ({"name": "a/b"}, "name 'a/b'"),
    ({"seed": -1}, "seed -1"),
    ({"level": 1.0}, "level 1.0"),
    ({"holdout": 0.9}, "holdout 0.9"),
    ({"delta": 0.0}, "delta 0.0"),
    ({"at": [-1.0]}, "budget -1.0"),
    ({"predicts": "nothing"}, "'nothing'"),
    ({"columns": {"total_params": "Q"}}, "no column 'Q'"),
    ({"columns": {"foo": "N"}}, "'foo'"),
    ({"where": ["loss"]}, "no comparison"),
    ({"where": ["other=1"]}, "no column 'other'"),
    ({"where": ["loss>high"]}, "no number"),
    ({"where": ["loss>9"]}, "no run is left of 12"),
    ({"drop_highest_loss": 12}, "from 0 to 11"),
    ({"conventions": {"tokens": "x"}}, "tokens=x"),
    ({"fixed": {"tokens": 1.0}}, "has a column"),
    ({"fixed": {"foo": 1.0}}, "foo"),
    ({"fixed": {"num_experts": -1.0}}, "at least 0"),
    ({"cluster": "N"}, "4 clusters"),
    ({"cluster": "family"}, "no column 'family'"),
    ({"prior": "no_such_law"}, "no_such_law"),
    ({"prior": "besiroglu2024", "prior_width": 0.0}, "prior width"),
]


@pytest.mark.parametrize("options, says", BAD_ARGUMENTS)
def test_arguments_that_cannot_be_are_refused(runs_file: str, options: dict[str, Any], says: str) -> None:
    """One sentence with the value; nothing is fitted."""
    with pytest.raises(MoeplanError) as error:
        fit(runs_file, "additive_power_law", **options)
    assert says in str(error.value)
    assert error.value.exit_code == 2


def test_unseen_quantities_are_warned_of(tmp_path: Path) -> None:
    """A form that sees size and tokens fits runs that also vary granularity, and says that it takes that for noise."""
    rows = [(n, d, 1 + i % 5, loss) for i, (n, d, loss) in enumerate(ROWS)]
    path = write(tmp_path / "runs.csv", rows, "N,D,granularity,loss")
    runs = read_runs(path)
    check(runs, "additive_power_law", "loss")
    assert unseen_quantities(runs, "additive_power_law") == ["granularity"]
    warnings = fit(path, "additive_power_law", draws=0).warnings
    assert any("vary granularity" in text for text in warnings)


def test_as_many_coefficients_as_runs_have_no_intervals(tmp_path: Path) -> None:
    """A form that passes through all of its five runs says nothing of its error, however often it is drawn."""
    rows = [ROWS[i] for i in (0, 2, 4, 7, 11)]
    found = fit(write(tmp_path / "runs.csv", rows), "additive_power_law", draws=100)
    assert found.method.draws == 0
    assert "as many coefficients as runs" in found.method.interval
    assert all(c.low is None for c in found.coefficients)
    assert any("as many coefficients as runs" in text for text in found.warnings)


def test_granular_runs_are_no_dense_law(tmp_path: Path) -> None:
    """Runs of size, tokens and granularity 1 to 8 speak of MoE: the law is not marked as one of dense models."""
    rows = [(n, d, g, loss + 0.05 / g) for n, d, loss in ROWS for g in (1, 2, 8)]
    found = fit(write(tmp_path / "runs.csv", rows, "N,D,granularity,loss"), "krajewski2024", draws=0)
    assert found.fixed == {}
    dense = fit(write(tmp_path / "dense.csv", ROWS), "additive_power_law", draws=0)
    assert dense.fixed == {"activation_ratio": 1}


def test_a_learning_rate_in_the_residuals_is_warned_of(tmp_path: Path) -> None:
    """Losses that rise with the learning rate beyond size and tokens are no property of size and tokens."""
    rng = np.random.default_rng(4)
    rates = 1e-3 * np.exp(rng.uniform(-1, 1, 12))
    rows = [(n, d, lr, loss * (1 + 0.01 * np.log(lr / 1e-3))) for (n, d, loss), lr in zip(ROWS, rates, strict=True)]
    path = write(tmp_path / "runs.csv", rows, "N,D,lr,loss")
    assert any("higher learning rates" in text for text in fit(path, "additive_power_law", draws=0).warnings)
    tuned = write(tmp_path / "tuned.csv", [(n, d, 1e-3, loss) for n, d, loss in ROWS], "N,D,lr,loss")
    assert not any("learning rate" in text for text in fit(tuned, "additive_power_law", draws=0).warnings)


def test_a_loss_below_all_runs_and_a_sweep_are_warned_of_first(tmp_path: Path) -> None:
    """A loss predicted below all that was measured is said to be before anything else, then that a sweep of learning
    rates was fitted whole; the first screen has both."""
    rates = (5e-4, 1e-3, 2e-3)
    rows = [(n, d, lr, loss * (1 + 0.01 * abs(np.log(lr / 1e-3)))) for n, d, loss in ROWS for lr in rates]
    path = write(tmp_path / "runs.csv", rows, "N,D,lr,loss")
    found = fit(path, "additive_power_law", draws=0, at=[1e26])
    assert "below all that the runs measured" in found.warnings[0]
    assert "several learning rates" in found.warnings[1]
    sections = fit_screen(found)
    shown = " ".join(str(row[1]) for section in sections if not section.title for b in section.blocks for row in b.rows)
    assert "below all that the runs measured" in shown
    assert "several learning rates" in shown


def test_a_sweep_of_learning_rates_is_warned_of(tmp_path: Path) -> None:
    """Several rates at one setting measure the rate; a sweep whose best is at its end may have a better one beyond."""
    rows = [(n, d, lr, loss * (1 + 0.02 * k)) for n, d, loss in ROWS for k, lr in enumerate((1e-3, 2e-3, 4e-3))]
    path = write(tmp_path / "runs.csv", rows, "N,D,lr,loss")
    warnings = fit(path, "additive_power_law", draws=0).warnings
    assert any("12 settings" in text and "12 of them end" in text for text in warnings)


def test_narrow_ranges_outliers_and_few_budgets_are_warned_of(tmp_path: Path) -> None:
    """A factor of 4 in size, two budgets and one loss that is off: each has its own sentence."""
    rows = []
    for budget in (1e20, 4e20):
        for n in np.geomspace(2e9, 8e9, 8):
            tokens = budget / 6 / n
            rows.append((n, tokens, 1.8 + 480 * n**-0.35 + 2100 * tokens**-0.37))
    rows[3] = (*rows[3][:2], rows[3][2] * 1.1)
    warnings = " ".join(fit(write(tmp_path / "runs.csv", rows), "additive_power_law", draws=0).warnings)
    assert "total_params spans only a factor of 4" in warnings
    assert "1 run lies" in warnings
    assert "line 5" in warnings
    assert "2 budgets" in warnings


def test_a_table_keeps_the_lines_of_its_file(tmp_path: Path) -> None:
    """Blank lines are skipped and counted; tabs and semicolons separate cells as well as commas."""
    path = tmp_path / "runs.tsv"
    path.write_text("N\tD\tloss\n\n1\t2\t3\n\n4\t5\t6\n", encoding="utf-8")
    table = read_table(path)
    assert table.lines == (3, 5)
    assert table.rows[1] == {"N": "4", "D": "5", "loss": "6"}


def test_a_column_filled_for_some_runs_need_not_be_there(tmp_path: Path) -> None:
    """Where only some runs state a quantity that can be computed, the message says to remove the column."""
    path = write(
        tmp_path / "runs.csv", [(*row, "" if i else 6 * row[0] * row[1]) for i, row in enumerate(ROWS)], "N,D,loss,C"
    )
    with pytest.raises(UsageError, match=r"line 3: column 'C' is empty.*remove the column, so that it is computed, or"):
        read_runs(path).column("train_flops")


def test_a_prior_is_not_advised_to_who_gives_one(tmp_path: Path) -> None:
    """Runs that vary nothing are refused with a prior, too, and not with the advice to give one."""
    path = write(tmp_path / "runs.csv", [ROWS[0]] * 12)
    with pytest.raises(InfeasibleError, match="the same in all 12 runs") as refused:
        check(read_runs(path), "additive_power_law", "loss", has_prior=True)
    assert "--prior" not in str(refused.value)
