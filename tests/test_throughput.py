"""The calibrated model of training throughput: published rows, another site, and what holds of any step."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeplan.architecture.published import find_model
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import devices, load_device, parse_gpus
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput import calibrate
from moeplan.cost.training.throughput.calibrate import Spread, Validation
from moeplan.cost.training.throughput.estimate import training_estimate
from moeplan.cost.training.throughput.runs import Run, RunTable, read_runs
from moeplan.cost.training.throughput.settings import (
    Constants,
    band,
    constants,
    kernels_of,
    peak_flops,
    priors,
    software_presets,
)
from moeplan.cost.training.throughput.site import Site, layer_seconds, site_of_device, site_of_runs, unmeasured
from moeplan.cost.training.throughput.step import STEP_TERMS, step_time
from moeplan.errors import InfeasibleError, UsageError
from tests.memory_cases import CASES, architecture, layout

H200 = Path(__file__).parent.parent / "examples" / "h200.yaml"
FACTS = Path(os.environ.get("MOEPLAN_FACTS") or "no-such-folder")
ROWS = FACTS / "throughput_rows.json"

QWEN = find_model("Qwen3-30B-A3B").architecture
LLAMA = find_model("Llama-3-8B").architecture
H100, GB200 = load_device("H100"), load_device("GB200")

needs_rows = pytest.mark.skipif(not ROWS.is_file(), reason="MOEPLAN_FACTS names no folder with throughput_rows.json")


@pytest.fixture(scope="module")
def table() -> RunTable:
    """The published rows."""
    return read_runs(ROWS)


@pytest.fixture(scope="module")
def site() -> tuple[Run, ...]:
    """36 steps measured on 8 B200 of another site, which no fit has seen: eager Megatron-LM in bf16."""
    runs = []
    for row in CASES["measured_b200"]["step_times"]:
        where = layout(row["cfg"])
        batch = row["micro_batches"] * where.dp
        runs.append(
            Run(
                model=row["case"],
                architecture=architecture(row["cfg"]),
                device=load_device("B200"),
                layout=where,
                batch=batch,
                seq_len=4096,
                precision="bf16",
                software=software_presets()["eager"],
                recomputed=frozenset(),
                balanced=True,
                sharded_weights=False,
                tokens_per_second=batch * 4096 / where.num_gpus / row["milliseconds"] * 1e3,
                label=f"{row['case']} {where}",
                weight=1.0,
            )
        )
    return tuple(runs)


@needs_rows
def test_rows_of_describable_models_are_read(table: RunTable) -> None:
    """Of 262 rows one is of a model that is not known and one has a layout that cannot be; each is named with why."""
    assert len(table.runs) == 260
    assert [model for model, _ in table.left_out] == ["nemotron-3.5-lightning", "deepseek-v3"]
    names = [run.model for run in table.runs]
    assert sum(name.startswith(("nemotron", "deepseek-v4")) for name in names) == 41
    assert next(why for name, why in table.left_out if name == "deepseek-v3").endswith("cp 1, ep 64, etp 1")


@needs_rows
def test_flops_are_those_that_rows_are_published_with(table: RunTable) -> None:
    """Rows' FLOPs a token within .1 %, gpt-oss's windows too, of Mamba-2 within .5 %; MLA's leave out rotary scores."""
    published = {}
    for row in json.loads(ROWS.read_text(encoding="utf-8")):
        extras = row["extras"]
        published[row["model"], row["seq"], extras["mtp"]] = row.get("flops_per_token")
    for run in table.runs:
        time = run.step()
        want = published[run.model, run.seq_len, run.architecture.num_mtp_layers > 0]
        if want is None:
            assert run.model in ("deepseek-v4-flash", "nemotron-3-ultra")
            continue
        near = 0.005 if run.model.startswith("nemotron") else {"MLA": 0.03}.get(run.family, 1e-3)
        assert float(time.model_flops / time.tokens) == pytest.approx(want, rel=near)


@needs_rows
def test_bundled_constants_describe_the_rows(table: RunTable) -> None:
    """In sample: median error 7 % at most, 90 % of the rows within 30 %, Kendall's tau of MFU .87 at least."""
    found = calibrate.errors(table.runs)
    spread = Spread.of(found)
    assert spread.median <= 0.07
    assert spread.within_30 >= 0.90
    assert calibrate.mfu_rank(table.runs, found) >= 0.87


def test_one_scalar_of_dense_steps_describes_another_site(site: tuple[Run, ...]) -> None:
    """36 steps measured elsewhere: scaled by the median of the dense ones, MoE ones err by 8 % at most (median)."""
    dense = [run for run in site if run.architecture.is_dense]
    moe = [run for run in site if not run.architecture.is_dense]
    assert (len(dense), len(moe)) == (24, 12)
    scale = calibrate.site_scale(dense)
    assert abs(np.log(scale)) < 1.2816 * band().site_ln_sd + 0.05
    scaled = [(1 + error) * scale - 1 for error in calibrate.errors(moe)]
    assert Spread.of(scaled).median <= 0.08
    assert max(map(abs, scaled)) < 0.15


@pytest.fixture(scope="module")
def validation(table: RunTable) -> Validation:
    """The fit repeated, and judged on what was left out."""
    return calibrate.validate(table.runs)


@pytest.mark.slow
@needs_rows
def test_the_fit_gives_the_bundled_constants(validation: Validation) -> None:
    """Repeated on the same rows, each constant comes out within .5 % or a fifth of its standard error."""
    for name in priors():
        off = abs(np.log(getattr(validation.fit.constants, name) / getattr(constants(), name)))
        assert off < max(0.005, validation.fit.ln_stderr[name] / 5), name


@pytest.mark.slow
@needs_rows
def test_left_out_models_devices_and_families(validation: Validation) -> None:
    """Models left out: median 10 %, 90 % within 30 %; devices 11 %, families 12 %; bands hold 80 +- 5 %."""
    spreads = {x.what: Spread.of(x.errors) for x in validation.left_out}
    assert spreads["model"].median <= 0.10
    assert spreads["model"].within_30 >= 0.90
    assert spreads["device"].median <= 0.11
    assert spreads["family"].median <= 0.12
    assert 0.75 <= validation.coverage <= 0.85
    assert validation.design_ln_sd == pytest.approx(band().design_ln_sd, abs=0.01)


@pytest.mark.slow
@needs_rows
def test_the_order_of_mfu_over_left_out_models(validation: Validation) -> None:
    """Kendall's tau between measured and predicted MFU of models that the fit did not see is .85 at least."""
    assert validation.mfu_rank >= 0.85


@pytest.mark.slow
@needs_rows
def test_fit_recovers_constants(table: RunTable) -> None:
    """Rows made by the model with other constants give those back where the rows bind them."""
    truth = constants().scaled(products_fp8=0.85, traffic=1.3, host_expert=1.5, network=0.8, attention=1.15)
    made = [dataclasses.replace(run, tokens_per_second=float(run.step(truth).tokens_per_second)) for run in table.runs]
    found = calibrate.fit(made)
    assert Spread.of(found.errors).median < 0.02
    for name in ("products_fp8", "traffic", "host_expert", "network"):
        ratio = np.log(getattr(found.constants, name) / getattr(truth, name))
        assert abs(ratio) < 2 * found.ln_stderr[name], name


def test_every_constant_has_a_value_in_reach_of_what_was_known() -> None:
    """27 constants of which 24 are fitted, all positive, none further than 2.5 standard deviations from its prior."""
    values = constants()
    assert len(dataclasses.fields(Constants)) == 27
    assert len(priors()) == 24
    for name, prior in priors().items():
        assert abs(np.log(getattr(values, name) / prior.centre)) < 2.5 * prior.ln_sd, name


def test_terms_add_up_and_agree_with_throughput() -> None:
    """Terms sum to the step, tokens/s is tokens by it, MFU is model FLOPs by the bf16 peak."""
    layout = Layout(tp=2, pp=2, ep=8, dp=8, micro_batch=1, virtual_stages=2)
    estimate = training_estimate(QWEN, parse_gpus("32xH100"), layout, batch=256)
    time = estimate.time
    assert set(time.terms()) == set(STEP_TERMS)
    assert all(value >= 0 for value in time.terms().values())
    assert sum(time.terms().values()) == pytest.approx(estimate.step_seconds)
    assert estimate.tokens_per_second_per_gpu * estimate.step_seconds * 32 == pytest.approx(256 * 4096)
    flops = QWEN.flops_per_token(4096) * estimate.tokens_per_second_per_gpu
    assert estimate.mfu == pytest.approx(flops / H100.bf16_flops)
    days = estimate.days(1e12)
    assert days * 86400 * 32 * estimate.tokens_per_second_per_gpu == pytest.approx(1e12)


def test_intervals_split_into_site_and_design() -> None:
    """The whole interval is wider than the design's; a measured site leaves the design's; free routing widens it."""
    layout, gpus = Layout(ep=8, dp=8), parse_gpus("8xH100")
    free = training_estimate(QWEN, gpus, layout, batch=64)
    forced = training_estimate(QWEN, gpus, layout, batch=64, balanced=True)
    assert free.spread.site_ln_sd == band().site_ln_sd
    assert free.spread.design_ln_sd > forced.spread.design_ln_sd == band().design_ln_sd
    low, high = free.interval
    near, far = free.spread.around(free.tokens_per_second_per_gpu, site=False)
    assert low < near < free.tokens_per_second_per_gpu < far < high
    measured = training_estimate(QWEN, gpus, layout, batch=64, site=Site(0.8, 0.05))
    assert measured.tokens_per_second_per_gpu == pytest.approx(0.8 * free.tokens_per_second_per_gpu)
    assert measured.spread.site_ln_sd == 0.05
    assert measured.mfu == pytest.approx(0.8 * free.mfu)


def _grid(architectures: list[Architecture]) -> Any:
    """Architectures of one attention as one shape of arrays."""
    names = [f.name for f in dataclasses.fields(Architecture)]
    fields: dict[str, Any] = {}
    for name in names:
        values = [getattr(a, name) for a in architectures]
        switch = values[0] is None or isinstance(values[0], bool | str)
        fields[name] = values[0] if switch else np.array(values, dtype=np.int64)
    return SimpleNamespace(**fields)


@pytest.mark.parametrize(
    "layout",
    [
        Layout(ep=8, dp=16),
        Layout(tp=2, pp=4, ep=16, dp=8, virtual_stages=3),
        Layout(tp=2, pp=8, ep=8, etp=2, dp=8, recompute="full"),
        Layout(tp=1, pp=2, cp=2, ep=4, dp=4, recompute="selective"),
    ],
    ids=str,
)
@pytest.mark.parametrize("software", ["eager", "partial graphs", "full graphs"])
def test_a_grid_is_timed_as_each_design(layout: Layout, software: str) -> None:
    """Arrays of designs give for each what it gives alone, to rounding."""
    designs = [
        Architecture(
            d_model=64 * n,
            num_layers=layers,
            vocab_size=131072,
            num_heads=n,
            num_kv_heads=n // 4,
            head_dim=128,
            d_ff=256 * n,
            num_experts=experts,
            num_active_experts=k,
            d_expert=width,
            num_shared_experts=shared,
            num_dense_layers=1,
            qk_norm="head",
        )
        for n, layers, experts, k, width, shared in (
            (32, 24, 64, 4, 768, 0),
            (32, 25, 128, 8, 1024, 1),
            (48, 47, 256, 6, 1536, 1),
            (64, 61, 160, 8, 2048, 2),
        )
    ]
    together = step_time(_grid(designs), layout, GB200, 1024, precision="mxfp8", software=software)
    for i, design in enumerate(designs):
        alone = step_time(design, layout, GB200, 1024, precision="mxfp8", software=software)
        assert together.total[i] == pytest.approx(float(alone.total), rel=1e-12)
        assert together.mfu(GB200)[i] == pytest.approx(float(alone.mfu(GB200)), rel=1e-12)


@given(
    experts=st.sampled_from([32, 64, 128, 256]),
    k=st.integers(2, 12),
    width=st.integers(4, 24),
    layers=st.integers(12, 64),
    precision=st.sampled_from(["bf16", "fp8"]),
)
def test_more_work_takes_longer(experts: int, k: int, width: int, layers: int, precision: str) -> None:
    """One more active expert, a wider one, a layer, or twice the batch never make a step shorter."""

    def seconds(**changed: Any) -> float:
        fields = {
            "d_model": 2048,
            "num_layers": layers,
            "vocab_size": 65536,
            "num_heads": 16,
            "num_experts": experts,
            "num_active_experts": k,
            "d_expert": 128 * width,
        }
        batch = changed.pop("batch", 64)
        architecture = Architecture(**{**fields, **changed})
        return float(step_time(architecture, Layout(ep=8, dp=8), H100, batch, precision=precision).total)

    base = seconds()
    assert seconds(num_active_experts=k + 1) >= base
    assert seconds(d_expert=128 * (width + 1)) >= base
    assert seconds(num_layers=layers + 1) > base
    assert base < seconds(batch=128) < 2 * base + 1e-9


def test_finer_experts_at_equal_flops_take_longer() -> None:
    """Halving the experts' width and doubling their number and k leaves FLOPs and costs time, on each precision."""
    layout = Layout(ep=8, dp=8)
    for device, precision in ((H100, "bf16"), (H100, "fp8"), (GB200, "mxfp8")):
        times = []
        for fine in (1, 2, 4):
            changed = {"num_experts": 64 * fine, "num_active_experts": 4 * fine, "d_expert": 1536 // fine}
            architecture = Architecture.from_dict({**QWEN.to_dict(), **changed})
            times.append(float(step_time(architecture, layout, device, 256, precision=precision).total))
        assert times == sorted(times)
        assert times[2] > 1.1 * times[0]


def test_better_software_is_faster() -> None:
    """Presets stand in order: eager, partial graphs, full graphs; forced balance beats free routing."""
    layout = Layout(ep=16, dp=16)

    def speed(software: str, balanced: bool = True) -> float:
        time = step_time(QWEN, layout, GB200, 256, precision="mxfp8", software=software, balanced=balanced)
        return float(time.tokens_per_second)

    assert speed("eager") < speed("partial graphs") < speed("full graphs")
    assert speed("partial graphs", balanced=False) < speed("partial graphs")
    assert speed("releases of 2025") < speed("releases of early 2026") < speed("partial graphs")
    assert list(software_presets())[:3] == ["eager", "partial graphs", "full graphs"]


def test_natural_routing_costs_what_was_measured() -> None:
    """Qwen3-235B on H100: 9 to 25 % of the time, less at longer sequences (Megatron-MoE-ModelZoo)."""
    architecture = Architecture.from_dict(
        {**QWEN.to_dict(), "d_model": 4096, "num_layers": 94, "num_heads": 64, "d_expert": 1536, "num_kv_layers": 94}
    )
    lost = []
    for seq_len, cp, dp in ((16384, 1, 8), (32768, 2, 4), (131072, 8, 1)):
        layout = Layout(tp=4, pp=8, ep=8, cp=cp, dp=dp, virtual_stages=4)
        times = [
            float(step_time(architecture, layout, H100, 256, seq_len, software="eager", balanced=forced).total)
            for forced in (False, True)
        ]
        lost.append(times[0] / times[1] - 1)
    assert lost == sorted(lost, reverse=True)
    assert 0.03 < lost[-1] < lost[0] < 0.30


def test_a_measured_device_is_a_known_site() -> None:
    """A real H200's timed layers lie within 25 % of the model; its site is surer than an unmeasured one."""
    device = load_device(H200)
    assert device.measured is not None
    for layer in (device.measured.dense_layer, device.measured.moe_layer):
        assert layer.graph_seconds is not None
        assert abs(np.log(layer_seconds(layer, device) / layer.graph_seconds)) < 0.25
    found = site_of_device(device)
    assert 0.9 < found.scale < 1
    assert found.ln_sd < unmeasured().ln_sd == site_of_device(load_device("H200")).ln_sd
    gpus = parse_gpus(f"8x{H200}")
    estimate = training_estimate(QWEN, gpus, Layout(ep=8, dp=8), batch=64)
    plain = training_estimate(QWEN, parse_gpus("8xH200"), Layout(ep=8, dp=8), batch=64)
    assert estimate.tokens_per_second_per_gpu == pytest.approx(found.scale * plain.tokens_per_second_per_gpu, rel=1e-3)


def test_a_site_is_learnt_run_by_run(site: tuple[Run, ...]) -> None:
    """No run leaves the prior; the more runs, the surer, and the nearer to their own median."""
    assert site_of_runs(()) == unmeasured()
    dense = [run for run in site if run.architecture.is_dense]
    few, many = site_of_runs(dense[:1]), site_of_runs(dense)
    assert unmeasured().ln_sd > few.ln_sd > many.ln_sd
    assert many.scale == pytest.approx(calibrate.site_scale(dense), rel=0.03)


def test_every_device_can_be_timed() -> None:
    """Each bundled device has kernels, and each precision they have gives a finite time below the peak."""
    for device in devices().values():
        for precision in kernels_of(device).precisions:
            if precision != "bf16" and device.fp8_flops is None:
                continue
            time = step_time(LLAMA, Layout(dp=8), device, 64, precision=precision)
            assert np.isfinite(time.total)
            assert 0 < float(time.model_flops / time.total) < peak_flops(device, precision)


def test_mistakes_are_one_sentence() -> None:
    """Unknown precision or software, a precision a device lacks, a batch or GPUs that do not fit: what would work."""
    layout, gpus = Layout(ep=8, dp=8), parse_gpus("8xH100")
    with pytest.raises(UsageError, match="has no mxfp8 for training; use bf16 or fp8"):
        training_estimate(QWEN, gpus, layout, batch=64, precision="mxfp8")
    with pytest.raises(UsageError, match="precision 'int4' must be one of bf16, fp8, mxfp8, nvfp4"):
        training_estimate(QWEN, gpus, layout, batch=64, precision="int4")
    with pytest.raises(UsageError, match="has no fp8 for training; use bf16"):
        training_estimate(LLAMA, parse_gpus("8xA100-80GB"), Layout(dp=8), batch=64, precision="fp8")
    with pytest.raises(UsageError, match="unknown software 'partial'; did you mean partial graphs"):
        training_estimate(QWEN, gpus, layout, batch=64, software="partial")
    with pytest.raises(InfeasibleError, match="batch 60 must be a multiple of dp 8"):
        training_estimate(QWEN, gpus, layout, batch=60)
    with pytest.raises(InfeasibleError, match="is for 8 GPUs, not 16"):
        training_estimate(QWEN, parse_gpus("16xH100"), layout, batch=64)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "must be a list of rows"),
        ("[1]", "must be a list of rows"),
        ("[", "is not JSON"),
        ('[{"model": "Llama-3-8B", "hw": "H100", "gpus": 0}]', "row 1: gpus 0 must be a whole number"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path: Path, text: str, says: str) -> None:
    """A file that holds no rows, or a row without its numbers, is refused by place and value."""
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=says):
        read_runs(path)


def test_too_few_runs_are_refused(site: tuple[Run, ...]) -> None:
    """Three runs cannot tell 24 constants, and one model cannot be left out of itself."""
    with pytest.raises(UsageError, match="3 runs are too few"):
        calibrate.fit(site[:3])
