"""The back-test: claims counted from both shapes, papers' numbers, honest bounds, and the interval built from it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from moeplan import backtest
from moeplan.architecture.published import find_model
from moeplan.cli import cli
from moeplan.errors import LawError
from moeplan.laws import Law, load_law
from moeplan.laws.leverage import predict
from moeplan.quantities import number, scientific, times
from moeplan.records import from_json, to_json
from moeplan.report.backtest import backtest_chart, backtest_sections
from moeplan.report.blocks import Table
from moeplan.report.text import Text
from moeplan.studies.backtest import run as backtesting
from moeplan.studies.backtest.equivalences import Equivalence, Side, equivalences
from moeplan.studies.backtest.scores import BackTest, EquivalencePrediction, Result
from moeplan.units import format_count

DOCS = "".join(
    (Path(__file__).parent.parent / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("answer", "accuracy")
)


@pytest.fixture(scope="module")
def test() -> BackTest:
    """The back-test of every bundled law."""
    return backtest()


def row(name: str) -> Equivalence:
    """An equivalence by name."""
    return next(x for x in equivalences() if x.name == name)


def result(test: BackTest, name: str) -> Result:
    """What the laws say of one equivalence."""
    return next(x for x in test.results if x.name == name)


def by(found: Result, law: str) -> EquivalencePrediction:
    """What one law says of it."""
    return next(x for x in found.predictions if x.law == law)


def sides(name: str) -> tuple[Any, Any]:
    """Both shapes of an equivalence: the MoE and what it is compared with."""
    found = row(name)
    assert found.moe.architecture is not None
    assert found.against.architecture is not None
    return found.moe.architecture, found.against.architecture


def test_ling_mini_beta(test: BackTest) -> None:
    """tian2025 gives Ling-mini-beta 6.75 at its own 5.13e21 FLOPs; claimed are 7.15 by params and 6.00 by FLOPs."""
    found = result(test, "ling-mini-beta")
    said = by(found, "tian2025")
    published = {ratio.of: ratio.value for ratio in found.ratios if not ratio.computed}
    assert found.moe_flops_published == 5.13e21
    assert said.at_published_flops == pytest.approx(6.75, abs=0.01)
    assert published == {"active params without embeddings": pytest.approx(7.15, abs=0.005)}
    assert said.claimed == pytest.approx(6.00, abs=0.005)
    for claimed in (*published.values(), said.claimed):
        for predicted in (said.at_published_flops, said.predicted):
            assert predicted is not None
            assert abs(predicted / claimed - 1) < 0.20


def test_deepseekmoe_145b_is_shown_as_an_overshoot_of_a_lower_bound(test: BackTest) -> None:
    """tian2025 gives 4.44 where the paper counts 3.51; the MoE's loss is lower, so 3.51 is a bound that it keeps."""
    found = result(test, "deepseekmoe-145b")
    said = by(found, "tian2025")
    assert said.at_published_flops == pytest.approx(4.44, abs=0.005)
    assert found.ratios[0].value == pytest.approx(3.51, abs=0.005)
    assert found.loss == "lower"
    assert said.ratio is not None
    assert said.ratio > 1
    assert said.error == 0


def test_why_the_paper_counts_more_for_deepseek_67b() -> None:
    """2,057.5T FLOPs of 4K tokens are 72*L*d^2 + 12*L*d*seq + logits: its grouped keys and values are not in that."""
    moe, dense = sides("deepseekmoe-145b")
    L, d, seq, vocab = dense.num_layers, dense.d_model, 4096, dense.vocab_size
    formula = 72 * L * d**2 + 12 * L * d * seq + 6 * vocab * d
    assert formula * seq == pytest.approx(2057.5e12, rel=1e-3)
    assert dense.flops_per_token(seq, attention="full") * seq < 0.9 * 2057.5e12
    assert moe.flops_per_token(seq, attention="full") * seq == pytest.approx(585.6e12, rel=0.01)


@pytest.mark.parametrize(
    ("name", "moe", "dense", "tokens"),
    [("deepseekmoe-16b", 74.4e12, 183.5e12, 4096), ("deepseekmoe-2b", 4.3e12, 24.6e12, 2048)],
)
def test_shapes_cost_what_their_papers_print(name: str, moe: float, dense: float, tokens: int) -> None:
    """The shapes have the FLOPs of so many tokens that their papers print, within 2.5 %."""
    for shape, printed in zip(sides(name), (moe, dense), strict=True):
        assert shape.flops_per_token(tokens, attention="full") * tokens == pytest.approx(printed, rel=0.025)


def test_shapes_have_the_sizes_their_papers_print() -> None:
    """Shapes that had to be put together have the printed sizes: totals, active params, shares of FLOPs per token."""
    moe, _ = sides("deepseekmoe-145b")
    assert moe.total_params() == pytest.approx(144.6e9, rel=0.005)
    assert moe.active_params() == pytest.approx(22.2e9, rel=0.01)
    moe, dense = sides("deepseekmoe-2b")
    groups = moe.params_by_group()
    assert groups["routed_experts"] + groups["shared_experts"] == pytest.approx(1.89e9, rel=0.005)
    assert dense.params_by_group()["dense_ffn"] == pytest.approx(1.89e9, rel=0.005)
    for name, total, base in (("deepspeed-moe-52b", 52e9, 1.3e9), ("deepspeed-moe-13b", 13e9, 0.35e9)):
        moe, _ = sides(name)
        assert moe.total_params() == pytest.approx(total, rel=0.015)
        assert moe.active_params() == pytest.approx(base, rel=0.02)
    moe, dense = sides("joint-moe-e4")
    assert moe.total_params() == pytest.approx(dense.total_params(), rel=0.03)
    assert 1 - moe.active_params() / dense.active_params() == pytest.approx(0.61, abs=0.005)


def test_claims_are_counted_from_both_shapes(test: BackTest) -> None:
    """Every claim is the ratio of training FLOPs of the two shapes, 6*params + full attention, times their tokens."""
    for found in test.results:
        if found.kind not in ("study", "sign"):
            continue
        known = row(found.name)
        moe, dense = sides(found.name)
        flops = [
            (shape.flops_per_token(known.seq_len, attention="full", logits=False) * side.tokens)
            for shape, side in ((moe, known.moe), (dense, known.against))
        ]
        assert by(found, "tian2025").claimed == pytest.approx(flops[1] / flops[0], rel=1e-9)
        assert found.moe_flops == pytest.approx(flops[0], rel=1e-9)


@pytest.mark.parametrize("law", ["abnar2025", "ludziejewski2025", "clark2022", "tian2025"])
def test_a_dense_model_equals_itself(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against itself a dense model has a ratio of 1 by every law whose dense models are a case of its own equation."""
    side = Side("dense", find_model("Llama-3-8B").architecture, 1e12)
    same = dataclasses.replace(row("ling-mini-beta"), moe=side, against=side)
    monkeypatch.setattr(backtesting, "published_equivalences", lambda: (same,))
    (said,) = backtest([law]).results[0].predictions
    assert said.claimed == pytest.approx(1, rel=1e-12)
    assert said.predicted == pytest.approx(1, rel=0.02 if law == "tian2025" else 1e-6)


def test_bounds_are_one_sided(test: BackTest) -> None:
    """A lower bound is an error only where the prediction is below it, an upper one only where it is above."""
    for found in test.results:
        for said in found.predictions:
            if found.kind != "study":
                assert said.error is None
            elif said.ratio is not None:
                error = math.log(said.ratio)
                wrong = {"equal": True, "lower": error < 0, "higher": error > 0}[found.loss]
                assert said.error == pytest.approx(error if wrong else 0)


def test_a_kept_bound_makes_no_error_smaller(test: BackTest) -> None:
    """The error by law is over studies of equal loss and bounds crossed: bounds that are kept do not dilute it."""
    for score in test.scores:
        errors = []
        for found in test.results:
            said = by(found, score.law) if found.kind == "study" else None
            if said is not None and said.ratio is not None and (found.loss == "equal" or said.error):
                errors.append(math.log(said.ratio))
        assert len(errors) == score.equal + score.crossed
        assert score.rms == pytest.approx(np.sqrt(np.mean(np.square(errors))))
        assert score.factor == pytest.approx(np.exp(np.sqrt(np.mean(np.square(errors)))))
        assert score.bias_factor == pytest.approx(np.exp(np.mean(errors)))


def test_clark_does_not_see_tokens(test: BackTest) -> None:
    """A law at fixed tokens says nothing where the two sides had different tokens, and says why."""
    said = by(result(test, "olmoe-1b-7b"), "clark2022")
    assert said.predicted is None
    assert said.basis == "the two sides have different tokens, which it does not see"


def test_zhao_refuses_to_speak_about_dense(test: BackTest) -> None:
    """zhao2025 has no dense counterpart: listed with the reason among others, refused alone."""
    assert {silent.law: silent.why for silent in test.silent}["zhao2025"] == "it has no dense counterpart"
    assert all(score.law != "zhao2025" for score in test.scores)
    with pytest.raises(LawError, match=r"\(zhao2025: it has no dense counterpart\)"):
        backtest(["zhao2025"])


def test_laws_reproduce_what_their_papers_claim(test: BackTest) -> None:
    """At 1e20 krajewski2024 gives 21.3 and ludziejewski2025 2.79, side by side; tian2025 gives 7.24, clark2022 11."""
    found = {(claim.law, claim.stated): claim.found for claim in test.own_claims}
    assert found["krajewski2024", 20] == pytest.approx(21.3, abs=0.05)
    assert found["ludziejewski2025", 2.8] == pytest.approx(1 / (1 - 0.641), abs=0.01)
    assert found["tian2025", 7] == pytest.approx(7.24, abs=0.005)
    assert found["clark2022", 11] == pytest.approx(11, rel=0.02)


def test_preregistered_runs(test: BackTest) -> None:
    """marin2026 predicted 2.606 and 2.252 where its later runs measured 2.599 and 2.234."""
    assert [(round(run.predicted, 3), run.measured) for run in test.runs] == [(2.606, 2.599), (2.252, 2.234)]
    assert [run.excess for run in test.runs] == pytest.approx([0.007, 0.018], abs=5e-4)


def test_more_experts_are_worth_more_in_every_law(test: BackTest) -> None:
    """Of Kimi's pairs every law finds 384 experts better, and by more the fewer the other has, as measured."""
    pairs = [found for found in test.results if found.kind == "pair"]
    assert [found.ratios[0].value for found in pairs] == [1.69, 1.39, 1.15]
    for score in test.scores:
        predicted = [by(found, score.law).predicted or 0 for found in pairs]
        assert predicted[0] > predicted[1] > predicted[2] > 1


def test_every_row_says_where_it_is_from() -> None:
    """Names are unique; every row has a source and a confidence; every side a title."""
    rows = equivalences()
    assert len({x.name for x in rows}) == len(rows) >= 25
    for x in rows:
        assert x.source
        assert x.confidence in ("high", "medium")
        assert x.moe.title
        assert x.against.title
        assert (x.loss == "unknown") == (x.kind == "claim")


def leverage_law() -> tuple[Law, Any]:
    """tian2025 and its leverage's rule."""
    law = load_law("tian2025")
    assert law.objective is not None
    assert law.objective.uncertainty is not None
    return law, law.objective.uncertainty


def test_the_law_file_states_what_the_back_test_gives(test: BackTest) -> None:
    """The widening in laws/tian2025.yaml is the back-test's, to two digits, and fits the errors' mean square."""
    _, rule = leverage_law()
    (found,) = test.widening
    assert rule.per_decade_outside == pytest.approx(found.per_decade, abs=0.005)
    said = [by(x, "tian2025") for x in test.results if x.kind == "study" and x.loss == "equal"]
    errors, decades = (np.array([getattr(x, name) for x in said]) for name in ("error", "decades"))
    expected = np.mean(rule.rms**2 + (found.per_decade * decades) ** 2)
    assert np.mean(errors**2) == pytest.approx(expected, rel=1e-6)
    assert found.most_decades == pytest.approx(1.4, abs=0.05)
    assert f"{found.studies} studies".replace("4", "four") in rule.per_decade_source.replace(" published", "")
    assert f"{found.most_decades:.1f} decades" in rule.per_decade_source


def test_the_interval_does_not_feed_itself(test: BackTest) -> None:
    """With another widening in the law file the back-test gives the same one: it looks at point predictions."""
    law, rule = leverage_law()
    fit = law.fits["leverage"]
    other = dataclasses.replace(fit, uncertainty=dataclasses.replace(rule, per_decade_outside=1.0))
    (found,) = backtest([dataclasses.replace(law, fits={**law.fits, "leverage": other})]).widening
    assert found.per_decade == test.widening[0].per_decade
    assert found.per_decade_in_file == 1.0


def test_interval_holds_the_ling_claims() -> None:
    """Ling 2.0 claims about 7 at 1e23 to 6e24 FLOPs, where the law gives 9.3, 11.0 and 13.7: all inside 90 %."""
    law, rule = leverage_law()
    assert law.objective is not None
    for train_flops, value in ((1.35e23, 9.3), (7.3e23, 11.0), (6.1e24, 13.7)):
        found = float(law.objective(8 / 256, 8, train_flops))
        assert found == pytest.approx(value, rel=0.02)
        half = rule.half_width(math.log10(train_flops / 3e20))
        assert found * math.exp(-half) < 7 < found * math.exp(half)


def test_interval_rule_is_one_sentence_with_its_numbers(test: BackTest) -> None:
    """The rule names level, residual, widening and decades, and where they come from; inside the range no widening."""
    law, _ = leverage_law()
    shape = find_model("Ling-mini-beta").architecture
    outside, inside = (predict(law, [], shape, tokens, 4096) for tokens in (1e12, 1e10))
    for text in ("90 % interval", "0.07 inside", "67 points", "0.17 for each of 1.37 decades", "moeplan backtest"):
        assert text in outside.rule
    assert inside.decades_outside == 0
    assert "decade" not in inside.rule
    assert math.log(inside.high / inside.efficiency_leverage) == pytest.approx(1.6449 * 0.07, rel=1e-3)
    held = by(result(test, "ling-mini-beta"), "tian2025")
    assert (held.low, held.high) == pytest.approx((outside.low, outside.high))


def test_docs_quote_the_rule_and_the_counts(test: BackTest) -> None:
    """The docs' sentences on the interval and on the studies have the law file's and the back-test's numbers."""
    _, rule = leverage_law()
    text = " ".join(DOCS.split())
    assert f"{rule.rms:.0%} rms in ln EL, with {rule.per_decade_outside:.0%}".replace("%", " %") in text
    assert f"never under {rule.floor:.0%}".replace("%", " %") in text
    assert f"studies up to {test.widening[0].most_decades:.1f} factors of ten out" in text
    numbers = {2: "two", 3: "three", 4: "four", 7: "seven"}
    studies = [found for found in test.results if found.kind == "study"]
    equal = sum(found.loss == "equal" for found in studies)
    assert f"against {numbers[len(studies)]} published studies" in text
    assert f"{numbers[equal].title()} end at equal loss; {numbers[len(studies) - equal]} bound" in text


def test_json_round_trip(test: BackTest) -> None:
    """The record is JSON with its schema, and reads back as what it was."""
    data = json.loads(json.dumps(to_json(test), allow_nan=False))
    assert data["schema"] == "moeplan.backtest/1"
    assert to_json(from_json(BackTest, data)) == data


def test_every_number_with_a_source_is_the_records(test: BackTest) -> None:
    """Each cell that names a place in the JSON shows the number that stands there, unit, bound and star aside."""
    data = to_json(test)
    cells = [
        cell
        for section in backtest_sections(test)
        for block in section.blocks
        if isinstance(block, Table)
        for line in block.rows
        for cell in line
        if isinstance(cell, Text) and cell.paths
    ]
    assert len(cells) > 100
    for cell in cells:
        for _, shown in cell.numbers:
            value: Any = data
            for part in shown.path.split("/")[1:]:
                value = value[int(part)] if isinstance(value, list) else value[part]
            assert shown.text in cell
            formats = (".1f", ".2f", ".3f", ".4f", "+.3f", ".3g", "d" if isinstance(value, int) else "g")
            written = {write(value) for write in (times, number, scientific, format_count)}
            assert shown.text in written | {format(value, each) for each in formats}


def test_report_says_it_all(test: BackTest) -> None:
    """Every study, law, source and silent law is in the report, and extrapolated laws carry a star."""
    text = "\n".join(
        str(part)
        for section in backtest_sections(test)
        for block in section.blocks
        for part in (
            [getattr(block, "text", "")]
            + list(getattr(block, "texts", ()))
            + [cell for line in getattr(block, "rows", ()) for cell in line]
        )
    )
    for found in test.results:
        assert found.source in text
        assert found.moe in text
    assert "tian2025*" in text
    assert "zhao2025: it has no dense counterpart." in text


def test_chart_has_every_prediction(test: BackTest) -> None:
    """The chart's points are what each law predicts of the studies of equal loss, a law a series."""
    chart = backtest_chart(test)
    points = {series.name: series for series in chart.series if series.kind == "points"}
    assert list(points) == [score.law for score in test.scores]
    for score in test.scores:
        said = [by(found, score.law) for found in test.results if found.kind == "study" and found.loss == "equal"]
        assert points[score.law].x == tuple(x.claimed for x in said)
        assert points[score.law].y == tuple(x.predicted for x in said)
    assert (chart.x_log, chart.y_log) == (True, True)


def test_command(test: BackTest) -> None:
    """`moeplan backtest` is the library's back-test, as text, Markdown and JSON; a mistake is one sentence."""

    def run(*args: str) -> Any:
        return CliRunner().invoke(cli, ["backtest", *args], prog_name="moeplan", env={"COLUMNS": "100"})

    assert json.loads(run("--json").stdout) == json.loads(json.dumps(to_json(test)))
    text = run().stdout
    assert "6.97x" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "| tian2025\\* |" in run("--markdown", "--law", "tian2025").stdout.replace("tian2025* |", "tian2025\\* |")
    for args, code, sentence in (
        (["--law", "zhao2025"], 2, "it has no dense counterpart"),
        (["--law", "zhao2024"], 2, "did you mean zhao2025"),
        (["--law", "tian2025", "--law", "tian2025"], 2, "named twice"),
        (["--json", "--markdown"], 2, "exclude each other"),
    ):
        done = run(*args)
        assert (done.exit_code, done.stdout) == (code, "")
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1


def test_own_law_file(tmp_path: Path) -> None:
    """A user's law file is tested like a bundled one; without a domain nothing is said to be inside."""
    text = load_law("ludziejewski2025")
    source = re.sub(r"    domain:\n(      .*\n)+", "", Path(text.path).read_text(encoding="utf-8"), count=1)
    file = tmp_path / "own.yaml"
    file.write_text(source.replace("name: ludziejewski2025", "name: own"), encoding="utf-8")
    own, bundled = backtest([file]), backtest(["ludziejewski2025"])
    assert own.scores[0].law == "own"
    assert own.scores[0].rms == bundled.scores[0].rms
    assert own.scores[0].inside == 0
    assert own.own_claims == ()
