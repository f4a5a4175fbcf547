"""Devices, GPU time and utilisation presets against published figures."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.cost.devices import (
    Gpus,
    assumed_device,
    bundled_device,
    devices,
    flops_of_time,
    gpu_time,
    load_device,
    parse_gpus,
    published_mfu,
)
from moeplan.errors import MoeplanError, UsageError
from tests.published import MODELS

H100 = load_device("H100")


def test_every_device_has_a_source() -> None:
    """All 31 devices have positive numbers, a source and a confidence, and an fp8 peak is never below bf16's."""
    assert len(devices()) == 31
    for name, device in devices().items():
        assert device.name == name
        assert device.source
        assert device.confidence in ("high", "medium")
        assert device.bandwidth > 1e11
        assert device.memory_bytes >= 16e9
        assert device.fp8_flops is None or device.fp8_flops >= device.bf16_flops
        assert (device.link_bandwidth is None) == (device.link_domain == 1)


def test_h100() -> None:
    """The H100 SXM has 989.4 dense bf16 TFLOP/s, 1978.9 in fp8, 80 GB and 3.35 TB/s."""
    assert H100.name == "H100 SXM"
    assert (H100.bf16_flops, H100.peak("fp8")) == (989.4e12, 1978.9e12)
    assert (H100.memory_bytes, H100.bandwidth) == (80 * 10**9, 3.35e12)


@pytest.mark.parametrize(
    "text, name",
    [
        ("h100", "H100 SXM"),
        ("H100-SXM", "H100 SXM"),
        ("a100-80gb", "A100-80GB SXM"),
        ("gb200", "GB200 (per GPU)"),
        ("tpu v5p", "TPU v5p"),
        ("ironwood", "TPU7x (Ironwood)"),
        ("rtx4090", "RTX 4090"),
    ],
)
def test_spellings(text: str, name: str) -> None:
    """Case, spaces, dashes and what stands in brackets do not matter to a device's name."""
    assert load_device(text).name == name


@pytest.mark.parametrize(
    "text, answer",
    [
        ("A10", "A100-40GB or A100-80GB SXM"),
        ("MI300", "MI300X"),
        ("H1000", "H100 SXM"),
        ("abacus", "known are A100-40GB"),
        ("cfg/mine.json", "cfg/mine.json: a device's file is YAML"),
    ],
)
def test_unknown_devices_are_refused(text: str, answer: str) -> None:
    """An unknown or ambiguous device is refused with the nearest names, or all of them."""
    with pytest.raises(UsageError, match=answer):
        load_device(text)


def test_a_device_of_ones_own(tmp_path: Path) -> None:
    """A YAML file of one row is a device; a missing or unknown key and a number below 0 are told with their line."""
    file = tmp_path / "mine.yaml"
    good = "name: Mine\nbf16_tflops: 100\nmemory_gb: 48\nbandwidth_gbs: 900\nsource: me\nconfidence: medium\n"
    file.write_text(good, encoding="utf-8")
    assert load_device(file).memory_bytes == 48 * 10**9
    assert parse_gpus(f"8x{file}").device.name == "Mine"
    for text, answer in (
        (good.replace("memory_gb: 48\n", ""), "lacks the key memory_gb"),
        (good + "colour: red\n", "line 7: colour is not a known key"),
        (good.replace("100", "-1"), "line 2: bf16_tflops is -1, must be above 0"),
        (good.replace("100", "fast"), "line 2: bf16_tflops is 'fast', must be a number"),
    ):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(UsageError, match=answer):
            load_device(file)
    with pytest.raises(UsageError, match="cannot be read"):
        load_device(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["256xH100", " 256 X h100 ", "256×H100 SXM", "256*H100"])
def test_groups_of_gpus(text: str) -> None:
    """A number, a times sign and a device are that many of it."""
    assert parse_gpus(text) == Gpus(256, H100)
    assert str(parse_gpus(text)) == "256xH100 SXM"


@pytest.mark.parametrize("text, answer", [("256", "need a device"), ("0xH100", "between 1 and"), ("", "need a device")])
def test_wrong_groups_are_refused(text: str, answer: str) -> None:
    """A group without a device or without GPUs is refused with an example."""
    with pytest.raises(UsageError, match=f"{answer}.*256xH100"):
        parse_gpus(text)


@given(st.text(max_size=12))
def test_any_text_is_a_group_or_an_error(text: str) -> None:
    """Any text is a group of devices or one of moeplan's errors."""
    with contextlib.suppress(MoeplanError):
        assert parse_gpus(text).count >= 1


def test_gpu_time_of_deepseek_v3() -> None:
    """DeepSeek-V3's 14.8T tokens took 2.664M H800-hours (arXiv 2412.19437, table 1): a MFU of 0.35 to 0.39.

    By our FLOPs per token, causal attention and logits included.
    """
    flops = MODELS["DeepSeek-V3"].flops_per_token(4096) * 14.8e12
    gpus = parse_gpus("2048xH800")
    hours = [gpu_time(flops, gpus, mfu).gpu_hours for mfu in (0.39, 0.35)]
    assert hours[0] < 2.664e6 < hours[1] * 1.001


@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1), st.integers(1, 2**20), st.sampled_from(["bf16", "fp8"]))
def test_time_and_flops_are_inverse(days: float, mfu: float, count: int, precision: str) -> None:
    """The compute that some days buy takes those days again."""
    gpus = Gpus(count, H100)
    flops = flops_of_time(gpus, days, mfu, precision)  # type: ignore[arg-type]
    back = gpu_time(flops, gpus, mfu, precision)  # type: ignore[arg-type]
    assert back.days == pytest.approx(days)
    assert back.gpu_hours == pytest.approx(days * 24 * count)


def test_money() -> None:
    """Money is GPU-hours times the price; without a price there is none."""
    gpus = parse_gpus("64xH100")
    assert gpu_time(1e22, gpus, 0.35, price_per_gpu_hour=2).money == pytest.approx(2 * 1e22 / (989.4e12 * 0.35) / 3600)
    assert gpu_time(1e22, gpus, 0.35).money is None


def test_published_runs_have_sources() -> None:
    """All 27 published runs have a source and a confidence, and shares between 0 and 1."""
    assert len(published_mfu()) == 27
    for run in published_mfu():
        assert run.source
        assert run.confidence
        assert run.mfu is None or 0 < run.mfu[0] <= run.mfu[1] < 1


@pytest.mark.parametrize(
    "call, answer",
    [
        (lambda: flops_of_time(Gpus(1, H100), 0, 0.3), "days 0 must be above 0"),
        (lambda: flops_of_time(Gpus(1, H100), 1, 1.5), "mfu 1.5 must be above 0 and at most 1"),
        (lambda: gpu_time(1e22, Gpus(1, H100), 0.0), "mfu 0.0 must be"),
        (lambda: gpu_time(1e22, Gpus(1, H100), 0.3, price_per_gpu_hour=-1), "price_per_gpu_hour -1"),
        (lambda: gpu_time(1e22, Gpus(1, load_device("A100-80GB")), 0.3, "fp8"), "has no fp8 peak"),
    ],
)
def test_impossible_times_are_refused(call: object, answer: str) -> None:
    """A time, share, price or precision that cannot be raises one sentence with its name and value."""
    with pytest.raises(UsageError, match=answer):
        call()  # type: ignore[operator]


def test_own_devices_are_written_as_they_were_named(tmp_path: Path) -> None:
    """GPUs of a user's file read back from their own text; bundled ones by name."""
    file = tmp_path / "mine.yaml"
    row = "{name: Mine, bf16_tflops: 500, memory_gb: 64, bandwidth_gbs: 2000, source: data sheet, confidence: high}"
    file.write_text(row, encoding="utf-8")
    own = parse_gpus(f"16x{file}")
    assert str(own) == f"16x{file}"
    assert parse_gpus(str(own)) == own
    assert str(parse_gpus("8xh100")) == "8xH100 SXM"


def test_a_measured_device_is_a_device_everywhere(tmp_path: Path) -> None:
    """The file that was measured on an H200 has its data sheet's peak and its own speeds, which the block keeps through
    a file; a missing or impossible speed in it is told with its key."""
    example = Path(__file__).resolve().parents[1] / "examples" / "h200.yaml"
    device = load_device(example)
    found = device.measured
    assert found is not None
    assert (device.bf16_flops, device.bandwidth) == (load_device("H200").bf16_flops, load_device("H200").bandwidth)
    assert 0.5 * device.bf16_flops < found.product_flops < device.bf16_flops
    assert list(found.grouped_product_flops) == ["128", "512", "2048"]
    speeds = list(found.grouped_product_flops.values())
    assert speeds == sorted(speeds)  # more tokens an expert fill the device better
    assert max(speeds) < found.product_flops
    assert found.permute_bytes_per_second < found.copy_bytes_per_second < device.bandwidth
    for layer in (found.dense_layer, found.moe_layer):
        assert layer.graph_seconds is not None
        assert layer.flops / device.bf16_flops < layer.graph_seconds < layer.seconds
    assert parse_gpus(f"8x{example}").device == device
    text = example.read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    for old, new, answer in (
        ("  precision: bf16\n", "", "measured lacks the key 'precision'"),
        ("  copy_bytes_per_second: 4", "  copy_bytes_per_second: -4", "copy_bytes_per_second is -4.*must be above 0"),
        ("  launch_seconds: ", "  launch_seconds: soon ", "launch_seconds is 'soon.*must be float"),
        ("    seconds: 0", "    seconds: -0", r"dense_layer\.seconds is -0.*must be above 0"),
        ("    sequences: 2", "    sequences: 0", r"dense_layer\.sequences is 0, must be above 0"),
        ("memory_gb: ", "memory_gb: 1e-300 # ", "memory_gb is 1e-300, must be from 0.001"),
        ("link_gbs: ", "link_gbs: 1e300 # ", r"link_gbs is 1e\+300, must be from 0.001"),
    ):
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")
        with pytest.raises(UsageError, match=answer):
            load_device(file)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB SXM"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA RTX 2000 Ada Generation", None),
        ("CPU x86_64, 2 threads", None),
    ],
)
def test_devices_by_their_drivers_names(driver: str, name: str | None) -> None:
    """What the driver calls a device finds its data sheet; a device that is not bundled finds none."""
    found = bundled_device(driver)
    assert (found.name if found else None) == name


def test_a_name_of_several_devices_means_one_of_them() -> None:
    """8xA100 is eight of 80 GB, said so with the other's name; one of unknown size stays so."""
    assert parse_gpus("8xA100").device.name == "A100-80GB SXM"
    assert assumed_device("8xA100") == "A100 is taken to mean A100-80GB SXM; write A100-40GB for another"
    assert assumed_device("8xA100-40GB") == assumed_device("64xH100") == assumed_device("") == ""
    assert bundled_device("NVIDIA A100-PCIE") is None


@pytest.mark.parametrize(
    "name, tflops, gigabytes, gbs", [("RTX 3090", 71, 24, 936), ("A800", 312, 80, 2039), ("V100", 125, 32, 900)]
)
def test_older_devices(name: str, tflops: float, gigabytes: float, gbs: float) -> None:
    """Dense peak, memory and bandwidth of devices that laboratories still have, as their makers' tables say."""
    device = load_device(name)
    assert (device.bf16_flops / 1e12, device.memory_bytes / 1e9, device.bandwidth / 1e9) == (tflops, gigabytes, gbs)
    assert device.fp8_flops is None
