"""Machines that are no bundled GPU: an Ascend NPU, held against what is published on it, and a measured H100."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from moeplan.architecture.shape import Architecture
from moeplan.cli import cli
from moeplan.cost.devices import load_device, parse_gpus
from moeplan.cost.training.throughput.settings import band
from moeplan.cost.training.throughput.site import site_of_device, unmeasured
from moeplan.studies.training_fit import TrainingRequest, training_fit

FILE = "examples/atlas-800t-a2.yaml"
PANGU = Architecture(
    d_model=7680,
    num_layers=61,
    vocab_size=153600,
    num_heads=128,
    head_dim=128,
    d_ff=18432,
    num_experts=256,
    num_active_experts=8,
    d_expert=2048,
    num_shared_experts=1,
    num_dense_layers=3,
    attention="mla",
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
)
"""Pangu Ultra MoE: 61 layers of 7,680, 256 experts, MLA and totals as published; the other sizes are DeepSeek-V3's."""


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in the example are those of the checkout."""
    monkeypatch.chdir(Path(__file__).parent.parent)


def test_the_file_is_a_device() -> None:
    """The file describes the bundled NPU with its links, and every command that takes a device takes it."""
    device, bundled = load_device(FILE), load_device("Ascend 910B")
    assert (device.bf16_flops, device.memory_bytes) == (bundled.bf16_flops, bundled.memory_bytes)
    assert str(parse_gpus(f"64x{FILE}")) == f"64x{FILE}"
    shown = CliRunner().invoke(cli, ["hardware", FILE])
    assert shown.exit_code == 0, shown.stderr
    assert "Ascend 910B (Atlas 800T A2)" in shown.stdout


def test_pangu_ultra_moe_trains_as_published() -> None:
    """1.46M tokens/s on 6,144 NPUs lie within twice the spread of a site that nothing is known of.

    The shape is 718B-A39B as published, within 4 %.
    """
    assert PANGU.total_params() == pytest.approx(718e9, rel=0.01)
    assert PANGU.active_params() == pytest.approx(39e9, rel=0.04)
    request = TrainingRequest(gpus=parse_gpus(f"6144x{FILE}"), batch=6144)
    found = training_fit(PANGU, request, seq_len=4096, tokens=None)
    predicted = found.layouts[0].tokens_per_second_per_gpu * 6144
    spread = math.hypot(band().site_ln_sd, band().design_ln_sd)
    assert abs(math.log(predicted / 1.46e6)) < 2 * spread
    assert 0.15 < found.layouts[0].mfu < 0.30


def test_it_is_planned_for_and_served_on() -> None:
    """A plan is trained on such NPUs and served on eight of them, within their memory."""
    words = f"recommend --gpus 64x{FILE} --days 20 --serve-gpus 8x{FILE} --served 100B --alternatives 0 --json"
    done = CliRunner().invoke(cli, words.split())
    assert done.exit_code == 0, done.stderr
    assert '"serve_gpus": "8xexamples/atlas-800t-a2.yaml"' in done.stdout
    assert '"memory": "8x64GB"' in done.stdout


def test_what_it_lacks_is_refused() -> None:
    """It multiplies in no fp8, which training in fp8 is told in one sentence."""
    done = CliRunner().invoke(cli, ["inspect", "qwen3-30b-a3b", "--gpus", f"64x{FILE}", "--train-precision", "fp8"])
    assert done.exit_code == 2
    assert "fp8" in done.stderr
    assert done.stderr.count("Error:") == 1


MEASURED = "examples/h100.yaml"


@pytest.mark.parametrize(
    "words",
    [
        f"recommend --gpus 8x{MEASURED} --days 10 --memory 80GB --range total_params=8B..10B --alternatives 0",
        f"recommend --gpus 8x{MEASURED} --flops 1e21 --memory 80GB --range total_params=8B..10B --alternatives 0",
        f"inspect qwen3-30b-a3b --gpus 64x{MEASURED} --memory 8x80GB",
        f"inspect qwen3-30b-a3b --gpus 64x{MEASURED}",
        f"compare qwen3-30b-a3b llama-3-8b --gpus 64x{MEASURED} --tokens 1T",
        f"frontier --over days --gpus 8x{MEASURED} --days 5..10 --memory 80GB --points 2 --range total_params=8B..10B",
        f"upcycle llama-3-8b --flops 1e22 --gpus 64x{MEASURED}",
        f"recommend --gpus 8x{MEASURED} --days 10 --served 100B --serve-gpus 1x{MEASURED} --range total_params=8B..10B",
    ],
)
def test_a_measured_device_goes_wherever_gpus_go(words: str) -> None:
    """What `hardware --measure` wrote on an H100 is planned for, inspected, compared and served on."""
    done = CliRunner().invoke(cli, [*words.split(), "--json"])
    assert done.exit_code == 0, done.stderr
    assert "NVIDIA H100 80GB HBM3" in done.stdout or f"x{MEASURED}" in done.stdout


def test_a_measured_device_is_one_site(tmp_path: Path) -> None:
    """A plan's speed on a measured device is what inspect predicts there; its site is known better than others."""
    plan = tmp_path / "plan.json"
    limits = ["--memory", "80GB", "--range", "total_params=8B..10B", "--alternatives", "0"]
    done = CliRunner().invoke(
        cli, ["recommend", "--gpus", f"8x{MEASURED}", "--days", "10", *limits, "--output", str(plan)]
    )
    assert done.exit_code == 0, done.stderr
    made = json.loads(plan.read_text())
    seen = json.loads(CliRunner().invoke(cli, ["inspect", str(plan), "--gpus", f"8x{MEASURED}", "--json"]).stdout)
    best = made["training"]["layouts"][0]
    assert seen["training"]["layouts"][0]["tokens_per_second_per_gpu"] == pytest.approx(
        best["tokens_per_second_per_gpu"], rel=1e-6
    )
    assert site_of_device(load_device(MEASURED)).ln_sd < unmeasured().ln_sd


def test_a_file_alone_is_one_device_of_it() -> None:
    """A device's file without a number is one such device, and is written so that a command takes it again."""
    assert str(parse_gpus(MEASURED)) == f"1x{MEASURED}"
    assert parse_gpus(str(parse_gpus(MEASURED))) == parse_gpus(MEASURED)
