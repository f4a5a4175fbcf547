"""What training an existing model on given GPUs takes, for a stated layout and for the fastest that fit."""

from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from moeplan.cost.devices import parse_gpus
from moeplan.cost.training.fastest import Trainer
from moeplan.cost.training.memory import training_memory
from moeplan.cost.training.memory_settings import TrainingSettings
from moeplan.cost.training.parallelism import Layout, read_layout
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.layouts import why_none
from moeplan.studies.training_fit import TrainingRequest, training_fit
from tests.published import MODELS

QWEN = MODELS["Qwen3-30B-A3B"]


def request(gpus: str, layout: str | None = None, **changes: object) -> TrainingRequest:
    """A request on GPUs, with a layout as text."""
    found = parse_gpus(gpus)
    stated = read_layout(layout, found.count) if layout else None
    return TrainingRequest(gpus=found, layout=stated, **changes)  # type: ignore[arg-type]


def test_numbers_of_a_layout_agree_with_each_other() -> None:
    """Tokens a second, step, days, MFU and memory of one layout are one truth, and the interval holds the value."""
    found = training_fit(QWEN, request("64xH100", "tp=1,pp=2,ep=8", batch=1024), seq_len=4096, tokens=1e12)
    (one,) = found.layouts
    assert one.tokens_per_second_per_gpu * 64 * one.step_seconds == pytest.approx(1024 * 4096)
    assert one.days == pytest.approx(1e12 / (one.tokens_per_second_per_gpu * 64) / 86400)
    flops = QWEN.flops_per_token(4096) * one.tokens_per_second_per_gpu
    assert one.mfu == pytest.approx(flops / parse_gpus("1xH100").device.bf16_flops)
    assert one.tokens_per_second_per_gpu.low < one.tokens_per_second_per_gpu < one.tokens_per_second_per_gpu.high
    layout = Layout(pp=2, ep=8, dp=32)
    memory = training_memory(QWEN, layout, TrainingSettings(num_micro_batches=32))
    assert one.bytes_per_gpu == memory.total == pytest.approx(sum(one.bytes_by_group.values()))
    assert sum(one.step_terms.values()) == pytest.approx(1)


def test_the_first_layout_found_is_what_it_is_when_stated() -> None:
    """Stating the fastest layout gives the same numbers, and every layout listed fits."""
    found = training_fit(QWEN, request("64xH100", batch=1024), seq_len=4096)
    first = found.layouts[0]
    text = ",".join(f"{name}={getattr(first, name)}" for name in ("tp", "pp", "ep", "etp", "cp", "dp", "micro_batch"))
    again = training_fit(
        QWEN, request("64xH100", f"{text},recompute={first.recompute}", batch=1024), seq_len=4096
    ).layouts[0]
    assert again == first
    assert all(each.fits for each in found.layouts)
    speeds = [each.tokens_per_second_per_gpu for each in found.layouts]
    assert speeds == sorted(speeds, reverse=True)


def test_what_cannot_be_trained_says_so() -> None:
    """671B params on eight GPUs fit no layout; a stated layout that does not fit is shown with what it lacks."""
    shape = MODELS["DeepSeek-V3"]
    found = training_fit(shape, request("8xH100"), seq_len=4096)
    assert (found.layouts, "use more GPUs" in found.says) == ((), True)
    stated = training_fit(QWEN, request("8xH100", "ep=8"), seq_len=4096)
    assert not stated.layouts[0].fits
    assert "usable" in stated.says


@pytest.mark.parametrize(
    "gpus, layout, error, words",
    [
        ("7xH100", "tp=2", InfeasibleError, "multiple of 2 GPUs"),
        ("8xH100", "tp=2,dp=8", InfeasibleError, "there are 8"),
        ("8xH100", "tensor=2", UsageError, "must name each of tp"),
        ("8xH100", "tp=0", UsageError, "tp 0"),
        ("8xH100", "tp=1,tp=2", UsageError, "at most once"),
        ("8xH100", "ep=3", InfeasibleError, "layout"),
    ],
)
def test_layouts_that_cannot_be_are_refused(gpus: str, layout: str, error: type[Exception], words: str) -> None:
    """One sentence says what is wrong with a layout."""
    with pytest.raises(error, match=words):
        training_fit(QWEN, request(gpus, layout), seq_len=4096)


def test_inspect_has_it_in_json_and_refuses_what_cannot_be() -> None:
    """`inspect MODEL --gpus --layout --json` has speed and memory; types that a device lacks end with one sentence."""
    run = CliRunner().invoke
    words = ["inspect", "qwen3-30b-a3b", "--gpus", "64xH100", "--layout", "tp=1,pp=2,ep=8"]
    data = json.loads(run(cli, [*words, "--json"]).output)
    assert data["training"]["layouts"][0]["tokens_per_second_per_gpu"] > 0
    assert data["training"]["layouts"][0]["bytes_per_gpu"] > 0
    refused = run(cli, [*words, "--train-precision", "mxfp8"])
    assert refused.exit_code == 2
    assert "use bf16 or fp8" in refused.output
    assert run(cli, ["inspect", "qwen3-30b-a3b", "--layout", "tp=1"]).exit_code == 2


def test_inspect_says_that_its_days_have_no_pauses() -> None:
    """`inspect --tokens` gives the days of training throughout, where `recommend` counts pauses, and says so."""
    words = ["inspect", "qwen3-30b-a3b", "--gpus", "64xH100", "--layout", "tp=1,pp=2,ep=8"]
    assert "without pauses" in CliRunner().invoke(cli, [*words, "--tokens", "1T", "--full"]).output


def test_the_smallest_layout_is_the_least_memory_that_trains() -> None:
    """With just what the smallest layout needs a model is trained, with one byte less it is not."""
    trainer = Trainer(gpus=parse_gpus("4xH100"), batch=64)
    least = trainer.least_bytes(QWEN)
    assert dataclasses.replace(trainer, usable_bytes=least).ranking(QWEN)
    assert not dataclasses.replace(trainer, usable_bytes=least - 1).ranking(QWEN)
    assert "the smallest needs" in why_none(QWEN, dataclasses.replace(trainer, usable_bytes=least - 1))
