"""Which law's learning rate and batch a plan takes: said, chosen, kept, and held to a published model's."""

from __future__ import annotations

from pathlib import Path

import pytest

from moeplan import Budget, UsageError, read_plan, recommend
from moeplan.plan.training_and_serving import batch_sequences
from moeplan.report.sections import plan_sections
from moeplan.report.terminal import terminal_text
from moeplan.studies.backtest.run import backtest
from tests.test_cli import run

SMALL = ("recommend", "--flops", "1e21", "--memory", "24GB", "--alternatives", "0")


def test_deepseek_v3_validates_the_law_that_is_taken() -> None:
    """Of 2.2e-4 and 62.9M tokens tian2025 gives 2.01e-4 and 63.4M, within 10 % four decades out; steplaw2025 a third.

    The published numbers are those of arXiv 2412.19437.
    """
    (row,) = (row for row in backtest().hyperparameters if row.model == "DeepSeek-V3")
    said = {prediction.law: prediction for prediction in row.predictions}
    assert (row.learning_rate, row.batch_tokens) == (2.2e-4, 15360 * 4096)
    assert said["tian2025"].learning_rate == pytest.approx(2.01e-4, rel=0.005)
    assert said["tian2025"].batch_tokens == pytest.approx(63.4e6, rel=0.01)
    assert said["tian2025"].decades == pytest.approx(4.1, abs=0.1)
    assert said["steplaw2025"].learning_rate_ratio == pytest.approx(1 / 3.0, rel=0.2)
    assert said["steplaw2025"].batch_ratio == pytest.approx(1 / 3.2, rel=0.3)


def test_the_range_and_the_reason_are_said() -> None:
    """A plan says from where to where the laws lie, which is taken and that it came nearest to DeepSeek-V3."""
    plan = recommend(Budget("1e22", "80GB"), alternatives=0)
    text = " ".join(terminal_text(plan_sections(plan), 100).split())
    assert "The laws say a rate from 2.18e-4 to 5.02e-4 (2.3 times)" in text
    assert "Exports take tian2025's, the nearest to what DeepSeek-V3 was trained with" in text
    other = recommend(Budget("1e22", "80GB", hyperparameters="steplaw2025"), alternatives=0)
    text = " ".join(terminal_text(plan_sections(other), 100).split())
    assert "Exports take steplaw2025's; --hyperparameters names another" in text


def test_the_flag_chooses_and_the_plan_keeps_it(tmp_path: Path) -> None:
    """--hyperparameters puts a law first, trains with its batch, exports its rate, and --from repeats it."""
    file, again = tmp_path / "plan.json", tmp_path / "again.json"
    assert run(*SMALL, "--hyperparameters", "steplaw2025", "--output", str(file)).exit_code == 0
    plan, usual = read_plan(file), recommend(Budget("1e21", "24GB"), alternatives=0)
    assert plan.request.hyperparameters == "steplaw2025"
    assert usual.request.hyperparameters == "tian2025"
    assert plan.design == usual.design
    assert plan.hyperparameters == usual.hyperparameters[::-1]
    assert plan.hyperparameters[0].law == "steplaw2025"
    assert plan.training.batch_sequences == batch_sequences(plan.hyperparameters[0].batch_tokens, 4096, 1)
    assert run("recommend", "--from", str(file), "--output", str(again)).exit_code == 0
    assert {**read_plan(again).to_json(), "provenance": 0} == {**plan.to_json(), "provenance": 0}
    rate = f"{plan.hyperparameters[0].learning_rate:.4g}"
    assert rate.partition("e")[0] in run("export", str(file), "--to", "megatron").stdout


@pytest.mark.parametrize(
    "law, said", [("zhao2025", "does not give both"), ("deepseek2024", "of a MoE"), ("no", "unknown")]
)
def test_a_law_that_gives_no_rate_and_batch_of_a_moe_is_refused(law: str, said: str) -> None:
    """It ends in one sentence; for one of dense models alone, too."""
    refused = run(*SMALL, "--hyperparameters", law)
    assert refused.exit_code == 2
    assert said in refused.stderr
    with pytest.raises(UsageError):
        Budget("1e21", "24GB", hyperparameters="zhao2025")
