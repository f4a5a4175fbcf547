"""`fit` reads tables as people and programs write them, and refuses what no training run can be."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.errors import InfeasibleError, UsageError
from moeplan.estimates import Estimate
from moeplan.fitting import fit
from moeplan.fitting.cells import read_number, unit_of_header
from moeplan.fitting.identify import identify
from moeplan.fitting.names import name_columns
from moeplan.fitting.problem import make_problem
from moeplan.fitting.reading import read_runs
from moeplan.fitting.result import Optimum
from moeplan.fitting.start import fits
from moeplan.fitting.sufficiency import candidates, check
from moeplan.fitting.table import read_table
from moeplan.fitting.warn import interval_warnings
from moeplan.laws.signatures import FORMS, form_coordinates, form_variables

SIZES = (5e7, 1e8, 2e8, 4e8)
RUNS = [(n, n * t, round(1.7 + 495.7 * n**-0.3527 + 388 * (n * t) ** -0.28, 5)) for n in SIZES for t in (10, 25, 80)]
"""Twelve runs: params, tokens, loss."""


def table(header: str, rows: list[tuple[str, ...]], delimiter: str = ",") -> bytes:
    """Rows as the bytes of a CSV file, quoted where they must be."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([header.split("|"), *rows])
    return text.getvalue().encode()


def plain(delimiter: str = ",", header: str = "N|D|loss") -> bytes:
    """The runs as they are."""
    return table(header, [(f"{n:.0f}", f"{d:.0f}", f"{x}") for n, d, x in RUNS], delimiter)


def packed(path: Path) -> bytes:
    """The runs as a Parquet file with an index as pandas keeps it."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = dict(zip(("N", "D", "loss"), map(list, zip(*RUNS, strict=True)), strict=True))
    parquet.write_table(pyarrow.table({**columns, "__index_level_0__": list(range(12))}), path)
    return path.read_bytes()


def lines(rows: list[dict[str, Any]]) -> bytes:
    """JSON lines."""
    return "\n".join(json.dumps(row) for row in rows).encode()


def written(n: str, d: str, x: str = "{:g}", header: str = "N|D|loss", delimiter: str = ",", swap: str = "") -> bytes:
    """The runs in given notations of params, tokens and loss; `swap` changes characters of all cells, pairwise."""
    changes = str.maketrans(dict(zip(swap[::2], swap[1::2], strict=True)))
    cells = [(n.format(size), d.format(tokens), x.format(loss)) for size, tokens, loss in RUNS]
    return table(header, [tuple(cell.translate(changes) for cell in row) for row in cells], delimiter)


def tracked(header: str, *more: str) -> bytes:
    """The runs as a tracker exports them: two columns before, one or more behind."""
    return table(header, [("r", "finished", f"{n:.0f}", f"{d:.0f}", f"{x}", *more) for n, d, x in RUNS])


MILLIONS = [(n / 1e6, d / 1e9, x) for n, d, x in RUNS]
IN_UNITS = [(f"{n:g}", f"{d:.10g}", f"{x}") for n, d, x in MILLIONS]
WANDB = [
    {
        "name": "r",
        "config": {"n_params": {"value": n, "desc": None}, "betas": [0.9, 0.95]},
        "summary": {"tokens": d, "val_loss": x, "_wandb": {"runtime": 3}},
    }
    for n, d, x in RUNS
]
WRITTEN: dict[str, Callable[[Path], bytes]] = {
    "plain": lambda p: plain(),
    "a byte order mark": lambda p: b"\xef\xbb\xbf" + plain(),
    "semicolons": lambda p: plain(";"),
    "a semicolon at the end of lines": lambda p: plain(";").replace(b"\r\n", b";\r\n"),
    "decimal commas": lambda p: plain(";").replace(b".", b","),
    "quoted decimal commas": lambda p: written("{:.0f}", "{:.0f}", "{}", swap=".,"),
    "decimal commas and dots": lambda p: written("{:,.0f}", "{:,.0f}", "{}", delimiter=";", swap=".,,."),
    "thousands": lambda p: written("{:,.0f}", "{:,.0f}", "{}"),
    "spaced thousands": lambda p: written("{:,.0f}", "{:,.0f}", "{}", swap=",\u202f"),
    "apostrophes": lambda p: written("{:,.0f}", "{:,.0f}", "{}", swap=",'"),
    "suffixes": lambda p: table("N|D|loss", [(f"{n}M", f"{d} B", x) for n, d, x in IN_UNITS]),
    "units in the header": lambda p: table("params (M)|tokens (B)|loss", IN_UNITS),
    "units behind an underscore": lambda p: table("params_m|tokens_in_billions|loss", IN_UNITS),
    "an index without a name": lambda p: table(
        "|N|D|loss", [(f"{i}", f"{n:.0f}", f"{d:.0f}", f"{x}") for i, (n, d, x) in enumerate(RUNS)]
    ),
    "gzip": lambda p: gzip.compress(plain()),
    "parquet": lambda p: packed(p.with_suffix(".parquet")),
    "MLflow": lambda p: tracked("run_id|status|params.n_params|params.tokens|metrics.val_loss|metrics.z_loss", "1"),
    "W&B's table": lambda p: tracked("Name|State|config.n_params|tokens_seen|val/loss|train/loss", "9"),
    "W&B's API": lambda p: lines(WANDB),
    "UTF-16, as spreadsheets export text": lambda p: plain("\t").decode().encode("utf-16"),
    "comments above": lambda p: b"# our runs\n#\n" + plain(),
    "numpy's savetxt": lambda p: b"# N D loss\n" + plain(" ").split(b"\n", 1)[1],
    "columns set apart by spaces": lambda p: plain().replace(b",", b"    "),
    "pandas' print": lambda p: (
        b"  N  D  loss\n"
        + b"".join(b"%d  %s" % (i, line) for i, line in enumerate(plain(" ").splitlines(keepends=True)[1:]))
    ),
    "Markdown": lambda p: b"\n".join(
        [b"| N | D | loss |", b"|---|:-:|--:|", *(b"| %s |" % row for row in plain("|").splitlines()[1:])]
    ),
    "units below the header": lambda p: table("params|tokens|loss", [("M", "B", "nats"), *IN_UNITS]),
    "a header of two levels": lambda p: table(
        "|model|data|eval",
        [("", "params (M)", "tokens (B)", "loss"), *((f"{i}", *row) for i, row in enumerate(IN_UNITS))],
    ),
    "errors behind numbers": lambda p: table("N|D|loss", [(n, d, f"{x} ± 0.003") for n, d, x in RUNS]),
    "errors in parentheses": lambda p: table("N|D|loss", [(n, d, f"{x}(3)") for n, d, x in RUNS]),
    "steps and batches": lambda p: table(
        "n_params|max_steps|global_batch_size|seq_length|loss",
        [(n, d / (256 * 2048), 256, 2048, x) for n, d, x in RUNS],
    ),
    "words behind numbers": lambda p: table(
        "N|D|cross entropy", [(f"{n} M params", f"{d} billion tokens", x) for n, d, x in IN_UNITS]
    ),
    "PF-days": lambda p: table("compute (PF-days)|N|loss", [(repr(6 * n * d / 8.64e19), n, x) for n, d, x in RUNS]),
    "tokens per param": lambda p: table("params|tokens_per_param|loss", [(n, repr(d / n), x) for n, d, x in RUNS]),
    "objects in objects": lambda p: lines(
        [{"config": {"model": {"total_params": n}, "train": {"tokens": d}}, "metrics": {"loss": x}} for n, d, x in RUNS]
    ),
    "paths of a tracker": lambda p: table(
        "config/model/n_params|config/data/train_tokens|eval/loss|train/loss", [(n, d, x, 9) for n, d, x in RUNS]
    ),
    "a data frame's JSON": lambda p: json.dumps(
        {name: {str(i): run[place] for i, run in enumerate(RUNS)} for place, name in enumerate(("N", "D", "loss"))}
    ).encode(),
    "columns as lists": lambda p: json.dumps(
        dict(zip(("N", "D", "loss"), map(list, zip(*RUNS, strict=True)), strict=True)), indent=1
    ).encode(),
    "a list under a name": lambda p: json.dumps(
        {"when": "May", "runs": [{"N": n, "D": d, "loss": x} for n, d, x in RUNS]}
    ).encode(),
    "a title above": lambda p: b"Sweep of May,,\r\n,,\r\n" + plain(),
    "a line of text above": lambda p: b"Sweep of May\n\n" + plain(),
    "a spreadsheet's mark of its delimiter": lambda p: b"sep=;\r\n" + plain(";"),
    "a name broken over lines": lambda p: b'N,D,"loss\n(nats)"\n' + plain().split(b"\n", 1)[1],
    "quotes behind spaces": lambda p: b'"N", "D", "loss"\n' + plain().split(b"\n", 1)[1].replace(b",", b", "),
    "R's write.table": lambda p: (
        b'"N" "D" "loss"\n' + b"".join(b'"%d" %s\n' % (i + 1, row) for i, row in enumerate(plain(" ").splitlines()[1:]))
    ),
    "R's write.table with commas": lambda p: (
        b'"N","D","loss"\n' + b"".join(b'"r%d",%s\n' % (i, row) for i, row in enumerate(plain().splitlines()[1:]))
    ),
    "an index of names": lambda p: table("|N|D|loss", [(f"run {i}", *row) for i, row in enumerate(RUNS)]),
    "pandas' pivot": lambda p: table("||loss", [("N", "D", ""), *RUNS]),
    "pandas' pivot of two levels": lambda p: table("||eval", [("", "", "loss (nats)"), ("N", "D", ""), *RUNS]),
    "pandas' groups": lambda p: table(
        "||loss|loss", [("", "", "mean", "std"), ("N", "D", "", ""), *((*run, 1) for run in RUNS)]
    ),
    "bars": lambda p: plain("|"),
    "bold Markdown": lambda p: b"\n".join(
        [
            b"| **N** | D | `loss` |",
            b"|---|:-:|--:|",
            *(b"| %s** |" % r for r in plain("|").replace(b"|", b"| **").splitlines()[1:]),
        ]
    ),
    "logarithms that say their base": lambda p: table(
        "log10_N|ln(tokens)|loss", [(repr(math.log10(n)), repr(math.log(d)), x) for n, d, x in RUNS]
    ),
    "powers of ten as printed": lambda p: table(
        "N|D|loss", [(f"{n / 1e7!r}x10^7", f"{d / 1e9!r} × 10⁹", x) for n, d, x in RUNS]
    ),
    "raised units": lambda p: table("N (×10⁶)|D (10^9)|loss", IN_UNITS),
    "German units": lambda p: table("params (Mio.)|tokens [Mrd]|loss", IN_UNITS),
    "a data frame's JSON by rows": lambda p: json.dumps(
        {str(i): dict(zip(("N", "D", "loss"), run, strict=True)) for i, run in enumerate(RUNS)}
    ).encode(),
    "a data frame's JSON, split": lambda p: json.dumps(
        {"columns": ["N", "D", "loss"], "index": list(range(len(RUNS))), "data": RUNS}
    ).encode(),
    "a list of objects": lambda p: json.dumps([{"N": n, "D": d, "loss": x} for n, d, x in RUNS]).encode(),
}


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=pytest.mark.verify) if how == "parquet" else how for how in WRITTEN]
)
def test_the_same_runs_are_read_however_they_are_written(how: str, tmp_path: Path) -> None:
    """Params, tokens and losses are the same numbers in every notation and export."""
    path = tmp_path / "runs.csv"
    path.write_bytes(WRITTEN[how](path))
    runs = read_runs(path)
    for name, column in zip(("total_params", "tokens", "loss"), zip(*RUNS, strict=True), strict=True):
        np.testing.assert_allclose(runs.require(name, "the test"), column, rtol=1e-9)


def test_a_first_run_without_numbers_is_no_second_header(tmp_path: Path) -> None:
    """A run that failed stands in the first row with text or NaN in place of numbers: it stays a run."""
    for first in ("r0,crashed,nan,nan,nan", "r0,crashed,,,"):
        path = tmp_path / "runs.csv"
        path.write_text(f"name,state,N,D,loss\n{first}\nr1,finished,5e7,1e9,3.5\nr2,finished,9e7,2e9,3.2\n")
        assert read_table(path).columns == ("name", "state", "N", "D", "loss")
        assert len(read_table(path).lines) == 3


def test_a_header_may_begin_with_a_hash(tmp_path: Path) -> None:
    """An index called # is a column, no comment, and lines are counted with the comments above."""
    path = tmp_path / "runs.csv"
    path.write_text("#,N,D,loss\n1,5e7,1e9,3.5\n2,9e7,2e9,3.2\n")
    assert read_table(path).columns == ("#", "N", "D", "loss")
    path.write_text("# ours\n# of May\nN,D,loss\n5e7,1e9,3.5\n9e7,2e9\n")
    with pytest.raises(UsageError, match="line 5: has 2 cells where the header has 3"):
        read_table(path)


@pytest.mark.parametrize(
    ("header", "hint"),
    [
        ("N,D,log_loss", "logarithms of losses"),
        ("N,D,loss (bits)", "--map 'loss=loss (bits)*0.693147'"),
        ("N,run 1 - loss,run 2 - loss", "--map 'loss=run 1 - loss'"),
    ],
)
def test_what_may_be_no_loss_is_asked_about(header: str, hint: str, tmp_path: Path) -> None:
    """Logarithms of losses and losses in bits are not taken for losses; a hint is quoted as a shell needs it."""
    path = tmp_path / "runs.csv"
    path.write_text(header + "\n5e7,1e9,3.5\n9e7,2e9,3.2\n")
    with pytest.raises(UsageError, match=re.escape(hint)):
        read_runs(path)


def test_losses_that_do_not_differ_determine_nothing(tmp_path: Path) -> None:
    """Ten runs of one loss are refused by every form and by auto, with what would work."""
    path = tmp_path / "runs.csv"
    path.write_bytes(table("N|D|loss", [(n, d, 3) for n, d, _ in RUNS]))
    for form in ("auto", "additive_power_law"):
        with pytest.raises(InfeasibleError, match="loss is 3 in all 12 runs"):
            fit(path, form=form, draws=0)


def test_no_experts_are_a_dense_model(tmp_path: Path) -> None:
    """E and k of 0, as tables have dense models beside others, count as one expert of one."""
    path = tmp_path / "runs.csv"
    path.write_text("N,Na,D,E,k,loss\n5e7,5e7,1e9,0,0,3.5\n2e8,5e7,1e9,16,2,3.2\n")
    runs = read_runs(path)
    assert runs.require("num_experts", "this").tolist() == [1, 16]
    assert runs.require("activation_ratio", "this").tolist() == [1, 0.125]


def test_a_run_in_another_unit_is_told(tmp_path: Path) -> None:
    """50 beside 8e8 params is 50 million; one sentence names the run, and the rule that leaves it out works."""
    path = tmp_path / "runs.csv"
    path.write_text("N,D,loss\n50,1e9,3.5\n2e8,2e9,3.2\n8e8,4e9,3\n")
    with pytest.raises(UsageError, match=r"line 2: column 'N' is 50, too few params .* one unit, or .* --exclude N=50"):
        read_runs(path).column("total_params")
    assert read_runs(path, exclude=["N=50"]).count == 2


def test_a_column_of_no_numbers_is_told_as_one(tmp_path: Path) -> None:
    """Where no cell holds a number the advice is another column, not a rule a run; long cells are cut."""
    path = tmp_path / "runs.csv"
    path.write_text("N,D,loss\n8x7B,1e9,3.5\n8x22B,2e9,3.2\n")
    with pytest.raises(UsageError, match=r"no other cell is better; .* --map total_params=COLUMN"):
        read_runs(path).column("total_params")
    path.write_text(f"N,D,loss\n5e7,1e9,3.5\n{'1' * 5000},2e9,3.2\n")
    with pytest.raises(UsageError) as refused:
        read_runs(path).column("total_params")
    assert len(str(refused.value).split("; leave")[0]) < 200 + len(str(path))


def test_a_wide_table_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Of ten thousand columns a refusal names a few."""
    path = tmp_path / "runs.csv"
    path.write_text(",".join(f"c{i}" for i in range(10_000)) + ",loss\n" + ",".join(["1"] * 10_001) + "\n")
    refusals: list[Callable[[], object]] = [
        lambda: read_runs(path).require("total_params", "additive_power_law"),
        lambda: read_runs(path, exclude=["x>1"]),
        lambda: read_runs(path, columns={"tokens": "x"}),
    ]
    for refusal in refusals:
        with pytest.raises(UsageError) as refused:
            refusal()
        assert len(str(refused.value)) < 1000


def test_logarithms_without_a_base_are_asked_about(tmp_path: Path) -> None:
    """A column of logarithms that is mapped to params is refused with the name that says so, which is read."""
    path = tmp_path / "runs.csv"
    path.write_text("log_size,D,loss\n7.7,1e9,3.5\n8.3,2e9,3.2\n")
    with pytest.raises(UsageError, match="name the column log10_total_params"):
        read_runs(path, columns={"total_params": "log_size"}).column("total_params")
    path.write_text("log10_total_params,D,loss\n7.7,1e9,3.5\n8.3,2e9,3.2\n")
    assert read_runs(path).require("total_params", "this").tolist() == pytest.approx([10**7.7, 10**8.3])


def test_the_end_of_a_name_settles_nothing_that_is_said_twice(tmp_path: Path) -> None:
    """teacher.params and student.params are both params, and which is meant nobody can know: neither is taken."""
    path = tmp_path / "runs.csv"
    path.write_text("teacher.params,student.params,D,loss\n5e7,1e7,1e9,3.5\n9e7,2e7,2e9,3.2\n")
    assert read_runs(path).column("total_params") is None
    assert read_runs(path, columns={"total_params": "student.params"}).column("total_params") is not None


def test_losses_that_are_none_are_asked_about(tmp_path: Path) -> None:
    """Log-likelihoods and perplexities are refused with what the loss is; NaN with a rule that takes all of it out."""
    path = tmp_path / "runs.csv"
    path.write_text("N,D,loss\n5e7,1e9,-3.5\n9e7,2e9,-3.2\n")
    with pytest.raises(UsageError, match="log-likelihoods"):
        read_runs(path)
    path.write_text("N,D,ppl\n5e7,1e9,33\n9e7,2e9,25\n")
    with pytest.raises(UsageError, match="the loss is the logarithm of 'ppl'"):
        read_runs(path)
    path.write_text("N,D,loss\n5e7,1e9,3.5\n9e7,2e9,nan\n9e7,3e9,-inf\n")
    with pytest.raises(UsageError, match="--where 'loss>0'"):
        read_runs(path)
    assert read_runs(path, where=["loss>0"]).count == 1


def test_diverged_runs_of_a_sweep_are_never_the_best(tmp_path: Path) -> None:
    """Of three learning rates, one of which diverged, --keep-best keeps the least loss and says of all others why."""
    path = tmp_path / "runs.csv"
    path.write_text(
        "N,D,lr,loss\n5e7,1e9,1e-4,3.6\n5e7,1e9,1e-3,3.5\n5e7,1e9,1e-2,NaN\n9e7,2e9,1e-3,3.2\n9e7,2e9,1,inf\n"
    )
    runs = read_runs(path, keep_best=True)
    assert runs.require("loss", "the test").tolist() == [3.5, 3.2]
    assert [x.line for x in runs.excluded] == [2, 4, 6]
    assert "its loss is NaN" in runs.excluded[1].reason


def test_several_files_are_one_table(tmp_path: Path) -> None:
    """Old and new runs under the columns of both; a bad cell is told with its own file and line; none is read twice."""
    rows = plain().splitlines(keepends=True)
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_bytes(b"".join(rows[:6]))
    turned = [b",".join([row.split(b",")[2].strip(), *row.split(b",")[:2]]) for row in rows[6:]]
    new.write_bytes(b"\n".join([b"loss,N,D", *turned]))
    np.testing.assert_allclose(read_runs([old, new]).require("loss", ""), [x for _, _, x in RUNS])
    assert fit([old, new], "additive_power_law", draws=0).runs.file == "old.csv, new.csv"
    with pytest.raises(UsageError, match="hold the same runs"):
        read_runs([old, old])
    new.write_bytes(b"loss,N,D\n3.1,1e8,1e9\nx,1e8,1e9\n")
    with pytest.raises(UsageError, match=r"new\.csv, line 3: column 'loss' is 'x'"):
        read_runs([old, new])


@given(st.floats(1e-6, 1e15), st.sampled_from([",", " ", "\u202f", "'"]))
def test_grouped_numbers_mean_what_they_show(value: float, mark: str) -> None:
    """A number with its thousands set apart is that number, and with a decimal comma, too."""
    text = f"{value:,.6f}"
    assert read_number(text.replace(",", mark)) == float(text.replace(",", ""))
    swapped = text.translate(str.maketrans(",.", ".,"))
    assert read_number(swapped, decimal_comma=True) == float(text.replace(",", ""))


@pytest.mark.parametrize(
    ("header", "name", "factor"),
    [("params (M)", "params", 1e6), ("tokens [B]", "tokens", 1e9), ("FLOPs (1e18)", "FLOPs", 1e18),
     ("compute (ZFLOPs)", "compute", 1e21), ("tokens in billions", "tokens", 1e9), ("params_m", "params", 1e6),
     ("active params (non-emb, M)", "active params (non-emb)", 1e6), ("d_model", "d_model", 1.0), ("loss", "loss", 1.0),
     ("active params (non-emb)", "active params (non-emb)", 1.0)],
)  # fmt: skip
def test_headers_state_units(header: str, name: str, factor: float) -> None:
    """Letters, words, powers of ten and FLOPs in a header are its unit; anything else is part of its name."""
    assert unit_of_header(header) == (name, factor)


NAMES: list[tuple[str, dict[str, str], str]] = [
    ("name,L,active params (non-emb),tokens seen,C,macro_loss", {}, "macro_loss"),
    ("L,N,D", {}, "L"),
    ("loss,N,D,aux_loss,z_loss", {}, "loss"),
    ("train_loss,val_loss,N,D", {}, "val_loss"),
    ("train_loss,N,D", {}, "train_loss"),
    ("L,macro_loss,micro_loss,N,D", {"loss": "micro_loss"}, "micro_loss"),
]


@pytest.mark.parametrize(("header", "given", "column"), NAMES)
def test_the_loss_is_what_says_so(header: str, given: dict[str, str], column: str) -> None:
    """The letter L, which may be the layers, yields to every column whose name holds "loss"."""
    assert name_columns(header.split(","), given, "f").columns["loss"] == column


@pytest.mark.parametrize("header", ["L,macro_loss,micro_loss,N,D", "code_loss,math_loss,N,D", "L,aux_loss,N,D"])
def test_columns_that_may_each_be_the_loss_are_refused(header: str, tmp_path: Path) -> None:
    """One sentence names them and the --map that settles it; a law of something else does not ask."""
    path = tmp_path / "runs.csv"
    path.write_text(f"{header}\n" + "3,2,2,1e8,1e9\n"[: 2 * header.count(",") - 2] + "1e8,1e9\n")
    with pytest.raises(UsageError, match=r"may each be the loss; choose with --map loss="):
        read_runs(path)


ABSURD = [
    ("tokens", "1e150", r"column 'tokens' is 1e150, must be from 1 to 1e\+30"),
    ("tokens", "0.5", r"column 'tokens' is 0\.5, must be from 1 to 1e\+30"),
    ("total_params", "1e-300", r"column 'total_params' is 1e-300, must be from 1 to 1e\+30"),
    ("loss", "1e308", r"column 'loss' is 1e308, must be from 1e-06 to 1e\+06"),
    ("loss", "1e-308", r"column 'loss' is 1e-308, must be from 1e-06 to 1e\+06"),
    ("loss", "1e400", r"column 'loss' is 1e400, must be finite"),
    ("granularity", "1e200", r"column 'granularity' is 1e200, must be from 1e-15 to 1e\+15"),
]


@pytest.mark.parametrize("packed", [False, True], ids=["csv", "json"])
@pytest.mark.parametrize(("column", "cell", "says"), ABSURD)
@pytest.mark.parametrize("form", ["additive_power_law", "auto"])
def test_what_no_run_can_be_is_refused(
    column: str, cell: str, says: str, form: str, packed: bool, tmp_path: Path
) -> None:
    """Numbers that would end as an overflow are told with file, line, column and value."""
    rows = [{"total_params": n, "tokens": d, "loss": x, "granularity": 1 + i % 4} for i, (n, d, x) in enumerate(RUNS)]
    cells = [{name: str(value) for name, value in row.items()} for row in rows]
    cells[4][column] = cell
    path = tmp_path / "runs.csv"
    path.write_bytes(lines(cells) if packed else table("|".join(cells[0]), [tuple(row.values()) for row in cells]))
    named = ["granularity"] if column == "granularity" else []
    if named and form != "auto":
        form = "fine_grained"
    with pytest.raises(UsageError, match=rf"runs\.csv, line {5 if packed else 6}: {says}"):
        fit(path, form, draws=0)


def test_numbers_in_millions_are_asked_about(tmp_path: Path) -> None:
    """A model of 50 params on .5 tokens is none: the question names the units, and the answer it asks for is taken."""
    path = tmp_path / "runs.csv"
    path.write_bytes(table("N|D|loss", [(f"{n / 1e6:g}", f"{d / 1e9:.10g}", f"{x}") for n, d, x in RUNS]))
    with pytest.raises(UsageError, match=r"column 'N' holds 50 to 400.*are they in millions or billions\?.*N\*M"):
        fit(path, "additive_power_law", draws=0)
    fitted = fit(path, "additive_power_law", draws=0, columns={"total_params": "N*M", "tokens": "D*1e9"})
    assert fitted.runs.derived["total_params"] == "column 'N' times 1e+06"
    assert fitted.values["A"] == pytest.approx(495.7, rel=0.02)
    assert fitted.runs.least_flops == pytest.approx(6 * 5e7 * 5e8)


def test_what_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed bomb is read up to the limit and told; so is a Parquet file by what it says it holds."""
    monkeypatch.setattr("moeplan.fitting.table.LARGEST_TABLE", 10_000)
    path = tmp_path / "runs.csv.gz"
    path.write_bytes(gzip.compress(b"N,D,loss\n" + b"1e9,1e10,3\n" * 100_000))
    assert path.stat().st_size < 10_000
    with pytest.raises(UsageError, match="unpacks to over"):
        read_table(path)
    path.write_bytes(gzip.compress(plain())[:-9])
    with pytest.raises(UsageError, match="no whole gzip file"):
        read_table(path)


def test_reading_takes_time_in_proportion(tmp_path: Path) -> None:
    """20,000 keys in a row, or as many columns, are read in seconds, not in the square of their number."""
    path = tmp_path / "runs.json"
    row = {f"key{i}": 1.5 for i in range(20_000)}
    path.write_bytes(lines([row | {"N": n, "D": d, "loss": x} for n, d, x in RUNS[:2]]))
    start = time.perf_counter()
    assert read_runs(path).count == 2
    assert time.perf_counter() - start < 5


def test_many_rows_are_sampled_evenly_and_said(tmp_path: Path) -> None:
    """Of 20,000 runs 5,000 are fitted, all of the rare large ones among them, and the law is that of all."""
    rng = np.random.default_rng(0)
    n = np.concatenate([10 ** rng.uniform(7, 8, 19_950), 10 ** rng.uniform(9, 10, 50)])
    d = n * 10 ** rng.uniform(0.5, 2, len(n))
    loss = (1.7 + 495.7 * n**-0.3527 + 388 * d**-0.28) * np.exp(rng.normal(0, 0.002, len(n)))
    path = tmp_path / "runs.csv"
    path.write_bytes(
        table("N|D|loss", [(f"{a:.6g}", f"{b:.6g}", f"{c:.6g}") for a, b, c in zip(n, d, loss, strict=True)])
    )
    runs = read_runs(path)
    assert (runs.count, runs.sampled_from) == (5000, 20_000)
    assert (runs.require("total_params", "") > 1e9).sum() == 50
    fitted = fit(path, "additive_power_law", draws=0)
    assert "a sample of 5000 of the 20000 runs" in " ".join(fitted.warnings)
    assert fitted.values["alpha"] == pytest.approx(0.3527, rel=0.03)
    assert (fitted.runs.used, fitted.runs.rows) == (5000, 20_000)


def test_the_best_of_a_sweep_is_kept(tmp_path: Path) -> None:
    """--keep-best leaves one run of each size and tokens, that of the least loss, and says why the others went."""
    rows = [(n, d, x + abs(i - 1) * 0.1, lr) for n, d, x in RUNS for i, lr in enumerate((1e-3, 2e-3, 4e-3))]
    path = tmp_path / "runs.csv"
    path.write_bytes(table("N|D|loss|lr", [tuple(map(str, row)) for row in rows]))
    assert "keep only the best of each (--keep-best)" in " ".join(fit(path, "additive_power_law", draws=0).warnings)
    runs = read_runs(path, keep_best=True)
    np.testing.assert_allclose(runs.require("loss", ""), [x for _, _, x in RUNS])
    assert len(runs.excluded) == 24
    assert runs.excluded[0].reason == "--keep-best (line 3 has the least loss of its setting)"


def test_shares_in_percent(tmp_path: Path) -> None:
    """12.5 % is .125 by the header's unit, the cell's, or --map; a share above 1 without any is refused."""
    path = tmp_path / "runs.csv"
    for header, cell in (
        ("activation_ratio (%)", "12.5"),
        ("activation_ratio", "12.5%"),
        ("activation_ratio", "0.125"),
    ):
        path.write_bytes(table(f"N|D|loss|{header}", [(*run, cell) for run in RUNS]))
        assert read_runs(path).require("activation_ratio", "the test") == pytest.approx(0.125)
    path.write_bytes(table("N|D|loss|activation_ratio", [(*run, "12.5") for run in RUNS]))
    with pytest.raises(UsageError, match=r"line 2.*at most 1.*--map 'activation_ratio=activation_ratio\*0.01'"):
        read_runs(path).column("activation_ratio")
    found = read_runs(path, columns={"activation_ratio": "activation_ratio*0.01"})
    assert found.require("activation_ratio", "the test") == pytest.approx(0.125)


def test_points_of_learning_curves_are_told(tmp_path: Path) -> None:
    """A history with many points of each run is warned of with the column to draw by; as many runs with names of their
    own, or whose names are those of models, are not."""
    path = tmp_path / "runs.csv"
    for header, warned in (("run", True), ("model", False)):
        path.write_bytes(table(f"{header}|N|D|loss", [(f"s{n:.0f}", n, d, x) for n, d, x in RUNS]))
        warnings = " ".join(fit(path, "additive_power_law", draws=0).warnings)
        assert ("--cluster run" in warnings) == warned
    path.write_bytes(table("run|N|D|loss", [(i, *run) for i, run in enumerate(RUNS)]))
    assert "--cluster" not in " ".join(fit(path, "additive_power_law", draws=0).warnings)


def test_a_size_that_hardly_varies_determines_no_exponent(tmp_path: Path) -> None:
    """Sizes within .2 % are refused with what varies and a form that sees it; auto does not choose such a form."""
    rows = [(2.15e9 + i % 2 * 5e6, n, d, x) for i, (n, d, x) in enumerate(RUNS)]
    path = tmp_path / "runs.csv"
    path.write_bytes(table("total_params|active_params|tokens|loss", [tuple(map(str, row)) for row in rows]))
    runs = read_runs(path)
    with pytest.raises(
        InfeasibleError, match=r"total_params varies by no more than 0\.23 %.*active_params, which they vary"
    ):
        check(runs, "additive_power_law", "loss")
    assert "additive_power_law" not in candidates(runs, "loss")


def test_what_stands_at_a_bound_is_not_identified() -> None:
    """Losses that fall without end put E at 0: no run says how low they go, and the headline must not say they do."""
    n, d = (np.array(column) for column in zip(*[(n, n * t) for n in SIZES for t in (10, 25, 80)], strict=True))
    problem = make_problem("additive_power_law", {"total_params": n, "tokens": d}, 9 * n**-0.05 + 3 * d**-0.04 - 0.5)
    y = fits(problem)[0]
    found = identify(problem, y)
    assert found.at_bound
    assert set(found.at_bound) <= set(found.says)


def test_as_many_coefficients_as_runs_determine_none(tmp_path: Path) -> None:
    """Three coefficients through three runs are none of them known."""
    path = tmp_path / "runs.csv"
    path.write_text("tokens,train_flops,loss\n75.3e9,2.00e19,3.2373\n220.3e9,1.31e20,2.9538\n542.4e9,7.16e20,2.7515\n")
    fitted = fit(path, "compute_power_law", draws=0, at=[1.19e23])
    assert [c.identified for c in fitted.coefficients] == [False] * 3
    assert next(x for x in fitted.optima if x.train_flops == 1.19e23).value == pytest.approx(2.356, abs=5e-4)


DECIDED_BY_MORE = {"total_params", "active_params", "nonzero_params", "base_params", "tokens", "flops_per_token"}
RANGES = {**dict.fromkeys(("total_params", "active_params", "nonzero_params", "base_params"), (1e8, 1e10)),
          **dict.fromkeys(("tokens", "unique_tokens", "flops_per_token"), (1e9, 1e11)), "train_flops": (1e18, 1e21),
          **dict.fromkeys(("activation_ratio", "shared_ratio", "weight_sparsity"), (0.01, 0.9))}  # fmt: skip
"""Of variables over runs; 1 to 64 for others."""


@pytest.mark.parametrize("form", [form for form in FORMS if form_variables(form)])
def test_at_is_answered_or_refused_by_every_form(form: str, tmp_path: Path) -> None:
    """A further budget has a prediction, or the form sees what a budget does not decide, which is said."""
    how, names = form_coordinates(form), form_variables(form)
    rng = np.random.default_rng(1)
    columns = {name: np.exp(rng.uniform(*np.log(RANGES.get(name, (1.0, 64.0))), 40)) for name in names}
    begin = {name: float(np.sqrt(np.prod(np.maximum(c.start, 1e-9)))) for name, c in how.coordinates.items()}
    with np.errstate(all="ignore"):
        values = np.asarray(FORMS[form](*columns.values(), **begin), dtype=float)
    columns[how.predicts] = np.where((values > 1e-5) & (values < 1e5), values, 2.5) * np.exp(rng.normal(0, 1e-3, 40))
    rows = [tuple(f"{x:.8g}" for x in row) for row in zip(*columns.values(), strict=True)]
    path = tmp_path / "runs.csv"
    path.write_bytes(table("|".join(columns), rows))
    if not set(names) & DECIDED_BY_MORE and "train_flops" not in names:
        with pytest.raises(UsageError, match="--at has no place with"):
            fit(path, form, draws=0, at=[3e22], holdout=0)
        return
    try:
        fitted = fit(path, form, draws=0, at=[3e22], holdout=0)
    except UsageError as error:
        said = str(error)
    else:
        found = next(x for x in fitted.optima if x.train_flops == 3e22)
        said = "" if found.value is not None else "at no size" if fitted.profiles else "nothing"
    assert said in ("", "at no size") or ("--at has no place with" in said and set(names) & DECIDED_BY_MORE)


def test_an_interval_far_wider_than_the_runs_scatter_is_told() -> None:
    """Runs that scatter by .13 % know a loss amid them to better than 3.458-3.876; 3.458-3.478 is no reason to warn."""
    residuals = 0.0013 * np.sin(np.arange(25.0)) * np.sqrt(2)
    broken, sound = (Optimum(1e20, True, None, None, Estimate(3.461, 3.458, h)) for h in (3.876, 3.478))
    beyond = Optimum(1e22, False, None, None, Estimate(3.0, 2.0, 4.0))
    assert len(interval_warnings([broken, sound, beyond], residuals)) == 1


def test_tiny_runs_are_read_where_their_compute_proves_the_units(tmp_path: Path) -> None:
    """Proxies of 1e5 params on 1e4 tokens are taken where the table's compute is 6*N*D, and asked about where not."""
    rows = [f"{n},{d},{6 * n * d},3.5" for n, d in ((40_000, 9_000), (60_000, 11_000), (90_000, 12_000))]
    path = tmp_path / "proxies.csv"
    path.write_text("\n".join(["total_params,tokens,train_flops,loss", *rows]) + "\n", encoding="utf-8")
    assert read_runs(str(path)).column("tokens") is not None
    path.write_text(path.read_text(encoding="utf-8").replace("train_flops", "note"), encoding="utf-8")
    with pytest.raises(UsageError, match="are they in millions"):
        read_runs(str(path)).column("tokens")


STEP_LAW = tuple(
    # Rows as the public table of Step Law's MoEs has them (arXiv 2503.04715, moe_lr_bs_loss.csv): 2.15B params, four
    # sets of active ones, sweeps of learning rates. Losses here are invented.
    (2048, topk, 2.15e9 * (1 + 0.001 * (active % 3)), active, d, rate, 2.0 + 90 * (6 * active * d) ** -0.115 + 5 * rate)
    for topk, active in ((1, 187973632), (2, 232579072), (1, 590436352), (3, 1241270272))
    for d in (2e9, 4e9, 8e9, 2e10)
    for rate in (2e-4, 5e-4, 1e-3, 2e-3)
)


def step_law(path: Path, header: str = "seq_len,topk,N,Na,D,lr,loss") -> str:
    """The table as a file."""
    lines = [header, *(",".join(f"{cell:.12g}" for cell in row) for row in STEP_LAW)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_a_table_of_sweeps_warns_and_says_what_it_extrapolates(tmp_path: Path) -> None:
    """Its N is all params and its Na the active ones (Na <= N, and its own FLOPs per token are 6*Na + 12*L*d*s). The
    sweep is told of, and a loss predicted at 1e21, below all that were measured, is said to be."""
    path = step_law(tmp_path / "moe.csv")
    found = fit(path, draws=0, at=[1e21])
    assert found.runs.columns["active_params"] == "Na"
    assert found.runs.most_flops == pytest.approx(6 * 1241270272 * 2e10)
    assert any("--keep-best" in text for text in found.warnings)
    best = fit(path, draws=0, at=[1e21], keep_best=True)
    assert best.runs.used == 16
    value = next(x.value for x in best.optima if x.train_flops == 1e21)
    least = min(row[-1] for row in STEP_LAW)
    assert value is not None
    assert value < least
    assert any(f"predicts loss {value:.4g}, below all that the runs measured ({least:.4g}" in x for x in best.warnings)
    assert not any("below all" in text for text in fit(path, draws=0, keep_best=True).warnings)


def test_swapped_sizes_are_refused(tmp_path: Path) -> None:
    """More active params than params are no model; the refusal says the --map that settles it, which does."""
    path = step_law(tmp_path / "swapped.csv", "seq_len,topk,Na,N,D,lr,loss")
    with pytest.raises(UsageError, match="no model has more active params") as error:
        fit(path, draws=0)
    assert "--map 'active_params=N' --map 'total_params=Na'" in str(error.value)
    mapped = fit(path, draws=0, keep_best=True, columns={"active_params": "N", "total_params": "Na"})
    assert mapped.runs.columns["active_params"] == "N"
