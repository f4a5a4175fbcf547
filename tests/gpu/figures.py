"""Figures of one device as JSON: `python -m tests.gpu.figures layers|steps|kernels [--device cpu]`.

layers: one MoE layer, forward and backward, beside transformers' at six proxy sizes, operation by operation and as one
CUDA graph each. steps: whole training steps of proxies, their memory beside `memory_bytes`. kernels: variants of what
the layer is made of, and where the time of a step goes.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from typing import Any

import numpy as np
import torch

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Gpus, load_device
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.estimate import training_estimate
from moeplan.verification.capture import fastest_step
from moeplan.verification.data import Corpus
from moeplan.verification.device import matmul_flops
from moeplan.verification.footprint import memory_bytes
from moeplan.verification.measure import _graph_seconds, median_seconds
from moeplan.verification.spec import RunSpec
from moeplan.verification.train import Trainer
from tests.benchmarks import verify_throughput as benchmark

SIZES = ((64, 32, 64, 8), (128, 64, 64, 8), (256, 128, 64, 8), (512, 256, 64, 8), (768, 384, 64, 8), (1024, 512, 64, 8))
"""(d_model, d_expert, num_experts, num_active_experts) of proxies."""
LEAST = 0.1
"""Least time of a measurement [s]."""


def layers(device: torch.device) -> list[dict[str, Any]]:
    """Seconds of ours and transformers' grouped_mm and default, eager and as a graph."""
    rows = []
    tokens = benchmark.TOKENS[device.type]
    for size in SIZES[: 6 if device.type == "cuda" else 2]:
        made, default = benchmark.implementations(size, "bf16", device.type)
        x = torch.randn(tokens, size[0], device=device).bfloat16().requires_grad_()
        upstream = torch.randn(tokens, size[0], device=device).bfloat16()
        row: dict[str, Any] = {"size": size, "tokens": tokens, "default": default, "eager": {}, "graph": {}}
        for name in ("ours", "grouped_mm", "eager"):
            step = benchmark._step(made[name], upstream, name)
            call = _bound(step, x)
            try:
                row["eager"][name] = median_seconds(call, device, LEAST)
            except RuntimeError as error:
                row["eager"][name] = str(error).splitlines()[0]
        for name in ("ours", "grouped_mm"):
            call = _bound(benchmark._step(made[name], upstream, name), x)
            try:
                row["graph"][name] = _graph_seconds(call, device, LEAST)
            except RuntimeError as error:
                row["graph"][name] = str(error).splitlines()[0]
        d_model, d_expert, num_experts, active = size
        row["flops"] = 6.0 * tokens * (3 * d_model * d_expert * active + d_model * num_experts)
        rows.append(row)
        print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def _bound(step: Any, x: torch.Tensor) -> Any:
    return lambda: step(x)


def proxy(d_model: int, num_layers: int, num_experts: int, active: int) -> Architecture:
    """A proxy as `verify` makes them."""
    head_dim = 16 if d_model < 128 else 32 if d_model < 512 else 64
    heads = d_model // head_dim
    experts: dict[str, Any] = {"d_ff": round(8 / 3 * d_model / 8) * 8}
    if num_experts:
        experts = {"num_experts": num_experts, "num_active_experts": active, "d_expert": d_model // 2,
                   "num_shared_experts": 1}  # fmt: skip
    return Architecture(
        d_model=d_model, num_layers=num_layers, vocab_size=256, num_heads=heads, num_kv_heads=max(1, heads // 4),
        head_dim=head_dim, qk_norm="head", **experts,
    )  # fmt: skip


STEPS = (
    (64, 2, 0, 0, 128, 256), (64, 2, 128, 6, 128, 256), (128, 3, 0, 0, 64, 256), (128, 3, 128, 6, 64, 256),
    (256, 6, 0, 0, 64, 512), (256, 6, 128, 6, 64, 512), (512, 9, 0, 0, 64, 512), (512, 9, 64, 6, 64, 512),
    (1024, 12, 0, 0, 32, 1024), (1024, 12, 64, 6, 16, 1024), (2048, 8, 0, 0, 8, 2048), (2048, 8, 32, 4, 8, 2048),
)  # fmt: skip
"""(d_model, layers, experts, active, sequences, seq_len) of whole steps."""


def spec_of(shape: tuple[int, ...], precision: Any = "bf16") -> RunSpec:
    """A run of 30 such steps."""
    d_model, num_layers, num_experts, active, sequences, seq_len = shape
    return RunSpec(
        arm="moe" if num_experts else "dense", control="", rung="figures", purpose="tune",
        architecture=proxy(d_model, num_layers, num_experts, active), embedding_parts=1, seq_len=seq_len,
        batch_sequences=sequences,
        steps=30, learning_rate=1e-3, warmup_steps=5, weight_decay=0.1, balance_rate=1e-2 if num_experts else 0.0,
        frozen_router=False, seed=0, precision=precision, data="figures", data_digest="", validation_tokens=0,
    )  # fmt: skip


def trainer(spec: RunSpec, device: torch.device) -> Trainer:
    """On random tokens."""
    tokens = np.random.default_rng(0).integers(0, 256, spec.tokens + 1).astype(np.uint8)
    return Trainer(spec, Corpus("figures", "", 256, True, tokens, tokens[:2], np.array([2]), 1, False), device, 1e-3)


def predicted_seconds(spec: RunSpec, site: str) -> dict[str, float]:
    """What the calibrated model of training time says of a step, by software preset; {site} is a device or its file."""
    layout = Layout(micro_batch=spec.batch_sequences)
    one = Gpus(1, load_device(site))
    return {
        software: training_estimate(
            spec.architecture, one, layout, batch=spec.batch_sequences, seq_len=spec.seq_len, software=software
        ).step_seconds
        for software in ("eager", "full graphs")
    }


def steps(device: torch.device, site: str | None = None) -> list[dict[str, Any]]:
    """Seconds of a whole step, eager and captured, MFU and memory; with {site} the predicted ones too."""
    rows = []
    cuda = device.type == "cuda"
    peak = matmul_flops(str(device), "bf16")
    for shape in STEPS if cuda else STEPS[:2]:
        if not cuda:
            shape = (*shape[:4], 4, shape[5])
        gc.collect()  # the trainer before lives in circles, and its memory would be freed in the midst of this one
        rows.append(step_row(shape, device, peak, site))
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "architecture"}), file=sys.stderr, flush=True)
    return rows


def step_row(shape: tuple[int, ...], device: torch.device, peak: float, site: str | None) -> dict[str, Any]:
    """The same of one shape; {peak} is the device's fastest product [FLOP/s]."""
    spec = spec_of(shape)
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    made = trainer(spec, device)
    for _ in range(3):
        made.step()
    row: dict[str, Any] = {"shape": shape, "counted_bytes": memory_bytes(spec)}
    if cuda:
        torch.cuda.synchronize()
        row["eager_peak_bytes"] = torch.cuda.max_memory_allocated() - before
    state = made.at.clone()

    def again(step: Any) -> Any:
        def call() -> None:
            made.at.copy_(state)
            step()

        return call

    row["eager_seconds"] = median_seconds(again(made.step), device, LEAST)
    made.at.zero_()
    restore = made.snapshot()
    eager = [_losses(made.step, made, restore) for _ in range(2)]
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step, execution = fastest_step(made)
    if cuda:
        row["reserved_bytes"] = torch.cuda.max_memory_reserved()
    captured = _losses(step, made, restore)
    row["eager_from_eager"], row["captured_from_eager"] = (_apart(x, eager[0]) for x in (eager[1], captured))
    row["execution"] = execution
    row["seconds"] = median_seconds(again(step), device, LEAST)
    if cuda:
        row["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    tokens = spec.batch_sequences * spec.seq_len
    flops = spec.architecture.flops_per_token(spec.seq_len) * tokens
    row |= {"tokens_per_second": tokens / row["seconds"], "mfu": flops / row["seconds"] / peak,
            "architecture": spec.architecture.to_dict(), "tokens": tokens}  # fmt: skip
    if site:
        row["predicted_seconds"] = predicted_seconds(spec, site)
    return row


def _losses(step: Any, made: Trainer, restore: Any) -> Any:
    """Losses of 20 steps from the remembered state."""
    restore()
    for _ in range(20):
        step()
    losses = made.losses[:20].double().cpu().numpy()
    restore()
    return losses


def _apart(losses: Any, expected: Any) -> list[float]:
    """Relative differences at steps 1, 2, 3, 6, 11 and 20."""
    return [float(f"{x:.2g}") for x in np.abs(losses / expected - 1)[[0, 1, 2, 5, 10, 19]]]


def kernels(device: torch.device) -> dict[str, Any]:
    """Variants of parts of the layer, and a profile of steps."""
    import torch.nn.functional as F

    found: dict[str, Any] = {}
    tokens, active, num_experts = 16384 if device.type == "cuda" else 512, 8, 64
    for d_model in (128, 512, 1024):
        row_MK = torch.randperm(tokens * active, device=device).view(tokens, active)
        y_RD = torch.randn(tokens * active, d_model, device=device).bfloat16()
        weight_MK = torch.rand(tokens, active, device=device).bfloat16()
        gathered = y_RD.index_select(0, row_MK.flatten()).view(tokens, active, -1)
        variants = {
            "gather, multiply, sum": lambda y=y_RD, r=row_MK, w=weight_MK: (
                y.index_select(0, r.flatten()).view(*r.shape, -1) * w[..., None]
            ).sum(dim=1),
            "gather, bmm": lambda y=y_RD, r=row_MK, w=weight_MK: torch.bmm(
                w[:, None], y.index_select(0, r.flatten()).view(*r.shape, -1)
            ),
            "embedding_bag": lambda y=y_RD, r=row_MK, w=weight_MK: F.embedding_bag(
                r, y, mode="sum", per_sample_weights=w
            ),
            "gather alone": lambda y=y_RD, r=row_MK: y.index_select(0, r.flatten()),
            "sum alone": lambda g=gathered: g.sum(dim=1),
        }
        for name, call in variants.items():
            try:
                found[f"combine d{d_model}: {name}"] = _graph_seconds(call, device, 0.05) or median_seconds(
                    call, device, 0.05
                )
            except RuntimeError as error:
                found[f"combine d{d_model}: {name}"] = str(error).splitlines()[0]
    ids_MK = torch.rand(tokens, num_experts, device=device).topk(active, dim=1).indices
    for kind in (torch.int64, torch.int32, torch.int16):
        found[f"sort ids as {kind}"] = median_seconds(
            lambda k=kind: ids_MK.to(k).flatten().sort(stable=True), device, 0.05
        )
    x_MD, router = torch.randn(tokens, 512, device=device), torch.randn(num_experts, 512, device=device)
    found["router fp32"] = median_seconds(lambda: F.linear(x_MD, router), device, 0.05)
    found["topk"] = median_seconds(
        lambda: torch.rand(tokens, num_experts, device=device).topk(active, dim=1), device, 0.05
    )
    for shape in ((128, 3, 128, 6, 64, 256), (512, 9, 64, 6, 64, 512)) if device.type == "cuda" else ():
        made = trainer(spec_of(shape), device)
        step, _ = fastest_step(made)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for _ in range(3):
                step()
            torch.cuda.synchronize()
        times = sorted(profile.key_averages(), key=lambda e: -e.self_device_time_total)
        found[f"profile {shape}"] = [
            [e.key[:90], round(e.self_device_time_total / 3), e.count // 3] for e in times[:25]
        ]
        del made, step
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["layers", "steps", "kernels"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--site", help="device, or its file by `hardware --measure`, whose steps are predicted")
    given = parser.parse_args()
    more = {"site": given.site} if given.what == "steps" else {}
    print(json.dumps(globals()[given.what](torch.device(given.device), **more), indent=1))


if __name__ == "__main__":
    main()
