"""Whether a model fits a given memory, for how many users, and how fast each is answered at best."""

from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner

from moeplan.cli import cli
from moeplan.cost.devices import load_device
from moeplan.cost.inference_memory import InferenceSettings, inference_bytes, total_inference_bytes
from moeplan.cost.serving.concurrency import serving_gpus
from moeplan.studies.inspection import inspect
from moeplan.studies.serving_fit import serving_fit
from moeplan.units import parse_memory
from tests.published import MODELS


@pytest.mark.parametrize(
    "memory,context,weights", [("80GB", 8192, "bf16"), ("2x40GB", 4096, "bf16"), ("48GB", 32768, "fp8")]
)
def test_the_most_sequences_are_those_that_fit_one_by_one(memory: str, context: int, weights: str) -> None:
    """Adding sequences one at a time until the fullest device is full gives the same number."""
    shape, limit = MODELS["Qwen3-30B-A3B"], parse_memory(memory)
    settings = InferenceSettings(weight_dtype=weights, context=context)  # type: ignore[arg-type]
    found = serving_fit(shape, limit, settings, load_device("H100"))
    count = 0
    while (
        total_inference_bytes(shape, dataclasses.replace(settings, concurrency=count + 1), limit.num_devices)
        <= 0.9 * limit.bytes_per_device
    ):
        count += 1
    assert (found.most_sequences, found.fits) == (count, count > 0)


def test_deepseek_v3_needs_eight_devices_of_141_gb() -> None:
    """In FP8 its 671 GB of weights do not fit 8x80GB and fit 8x141GB, as its makers' deployment notes say."""
    shape, device = MODELS["DeepSeek-V3"], load_device("H200")
    settings = InferenceSettings(weight_dtype="fp8", context=32768)
    small, large = (serving_fit(shape, parse_memory(f"8x{size}GB"), settings, device) for size in (80, 141))
    assert (small.fits, small.most_sequences, small.tokens_per_second_per_user) == (False, 0, None)
    assert large.fits
    assert large.most_sequences > 1


def test_speeds_obey_bytes_over_bandwidth() -> None:
    """A user alone is answered fastest, users together get more tokens from each GPU, and reading all weights once a
    token bounds a dense model: 16.06 GB at 3.35 TB/s are at most 209 tokens a second."""
    device = load_device("H100")
    found = serving_fit(MODELS["Llama-3-8B"], parse_memory("80GB"), InferenceSettings(context=1024), device)
    assert found.tokens_per_second_per_user is not None
    assert found.tokens_per_second_per_user_alone is not None
    assert found.tokens_per_second_per_gpu is not None
    assert found.tokens_per_second_per_user < found.tokens_per_second_per_user_alone < device.bandwidth / 15e9
    assert found.tokens_per_second_per_gpu == pytest.approx(
        found.tokens_per_second_per_user * found.most_sequences, rel=1e-12
    )


def test_inspect_answers_yes_or_no() -> None:
    """`inspect MODEL --memory` says yes or no first, with the users that fit, in text and JSON."""
    run = CliRunner().invoke
    assert "Yes: it fits 80GB" in run(cli, ["inspect", "qwen3-30b-a3b", "--memory", "80GB", "--full"]).output
    refused = run(cli, ["inspect", "deepseek-v3", "--memory", "8x80GB", "--full"])
    assert (refused.exit_code, "No: with one sequence" in refused.output) == (0, True)
    data = json.loads(run(cli, ["inspect", "qwen3-30b-a3b", "--memory", "80GB", "--json"]).output)
    assert data["serving"]["fits"] is True
    assert data["serving"]["most_sequences"] == 13
    assert inspect("qwen3-30b-a3b").serving is None


def test_latents_are_held_once_where_devices_attend_apart() -> None:
    """On 8x141GB DeepSeek-V3 in FP8 holds 88 sequences of 32,768 tokens if each device has its own, by hand.

    Of 126.9 GB a device spends 19.1 on weights that are no experts and 81.8 on 32 of 256 experts; 26.1 are left for
    caches of 2.303 GB, so 11 a device. Tensor parallelism, which copies latents to all devices, holds 18 in all.
    """
    shape, settings = MODELS["DeepSeek-V3"], InferenceSettings(weight_dtype="fp8", context=32768)
    stored = inference_bytes(shape, settings)
    rest = sum(size for name, size in stored.items() if name not in ("routed_experts", "kv_cache"))
    own = (0.9 * 141e9 - rest - stored["routed_experts"] / 8) // stored["kv_cache"]
    found = serving_fit(shape, parse_memory("8x141GB"), settings)
    assert (found.most_sequences, found.device, found.num_devices) == (8 * own, "H200", 8)
    assert total_inference_bytes(shape, dataclasses.replace(settings, concurrency=19), 8) > 0.9 * 141e9


def test_a_memory_limit_names_its_device() -> None:
    """80GB and 80GiB are an H100's, 141GB an H200's, 8x180GB eight B200; 640GB, which no device has, are eight H100."""
    named = {"80GB": "1xH100 SXM", "80GiB": "1xH100 SXM", "141GB": "1xH200", "8x180GB": "8xB200", "640GB": "8xH100 SXM"}
    assert {text: str(serving_gpus(parse_memory(text))) for text in named} == named
    assert str(serving_gpus(parse_memory("4x64GB"), load_device("Ascend 910B"))) == "4xAscend 910B"


def test_one_unit_of_memory() -> None:
    """A limit in GiB is repeated as given; all that is counted against it is in GB."""
    text = CliRunner().invoke(cli, ["inspect", "qwen3-30b-a3b", "--memory", "80GiB", "--full"]).output
    assert "it fits 80GiB, 77.3GB usable" in text
    assert text.count("GiB") == 1


@pytest.mark.parametrize("size, dtype", [(141, "fp8"), (80, "int4"), (40, "")])
def test_what_does_not_fit_says_which_weights_do(size: int, dtype: str) -> None:
    """DeepSeek-V3 does not fit eight H200 in bf16 and does in fp8, as it is served there; nothing is named in vain."""
    shape, limit = MODELS["DeepSeek-V3"], parse_memory(f"8x{size}GB")
    said = serving_fit(shape, limit, InferenceSettings()).says
    assert said.partition("; ")[2].startswith(f"with --weights {dtype} it needs") if dtype else "--weights" not in said
    if dtype:
        assert serving_fit(shape, limit, InferenceSettings(weight_dtype=dtype)).fits  # type: ignore[arg-type]


@pytest.mark.parametrize("memory, gpus", [("8x80GB", 32), ("8x141GB", 16), ("80GB", 32)])
def test_what_does_not_fit_says_how_many_gpus_would_hold_it(memory: str, gpus: int) -> None:
    """DeepSeek-V3's 1.34 TB in bf16 fit so many GPUs and not half as many, as whoever types that number finds."""
    shape, each = MODELS["DeepSeek-V3"], memory.removeprefix("8x")
    assert f"; {gpus} such GPUs hold it" in serving_fit(shape, parse_memory(memory), InferenceSettings()).says
    assert serving_fit(shape, parse_memory(f"{gpus}x{each}"), InferenceSettings()).fits
    assert not serving_fit(shape, parse_memory(f"{gpus // 2}x{each}"), InferenceSettings()).fits


def test_long_sequences_are_served_on_the_gpus_of_the_limit() -> None:
    """Where they hold 128k tokens; where they do not, on as many of their kind as do."""
    for memory, served in {"8x80GB": (8, "H100 SXM"), "1x141GB": (1, "H200"), "1x80GB": (2, "H100 SXM")}.items():
        found = inspect("qwen3-30b-a3b", memory=memory).long_sequences
        assert found is not None
        assert (found.num_devices, found.device) == served
