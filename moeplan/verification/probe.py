"""How fast this machine trains proxies: `probe` times a few small steps and fits `moeplan.verification.speed` to them.

`python -m moeplan.verification.probe DEVICE [--peaks]` prints the answer as JSON. Machines are probed that way, in a
process of its own, so that the one that asks holds nothing of a GPU while workers train.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from typing import Any

from moeplan.verification import leash

if __name__ == "__main__":
    leash.tie()  # before the slow imports

import numpy as np
import torch
from scipy.optimize import nnls

from moeplan import records
from moeplan.architecture.shape import Architecture
from moeplan.errors import MoeplanError
from moeplan.verification.capture import fastest_step
from moeplan.verification.data import Corpus
from moeplan.verification.device import device_name, matmul_flops, pick_device, wait
from moeplan.verification.footprint import memory_bytes
from moeplan.verification.launch import cores
from moeplan.verification.spec import RunSpec
from moeplan.verification.speed import PRECISIONS, Precision, Probe, features
from moeplan.verification.train import Trainer

PROBED = {
    # (d_model, layers, heads, experts, active, sequences, seq_len): spread over what a ladder of minutes trains
    "cpu": (
        (32, 1, 2, 0, 0, 8, 256), (32, 4, 2, 0, 0, 2, 512), (160, 1, 10, 0, 0, 4, 256), (32, 2, 2, 64, 4, 8, 256),
        (32, 3, 2, 64, 8, 4, 128), (96, 2, 6, 32, 4, 6, 256),
    ),
    "cuda": (
        (128, 2, 8, 0, 0, 64, 256), (128, 8, 8, 0, 0, 32, 512), (768, 4, 12, 0, 0, 64, 256),
        (128, 4, 8, 64, 4, 64, 256), (768, 4, 12, 64, 8, 64, 256), (512, 4, 8, 128, 8, 64, 256),
    ),
}  # fmt: skip
TIMED_STEPS = 8
"""Steps of each shape that are timed, at most, after one that is not. Their median counts: what else a machine does
slows runs as well, but one step that waited for it says nothing of the others."""
SHAPE_SECONDS = 0.15
"""After this long no further step of a shape is timed, so that a busy machine is not kept for long."""
MEMORY_SHARE = 0.5
"""Share of a GPU's free memory that a probed step may need by the forecast; its batch is halved until it does."""


def probe(device: str = "auto") -> Probe:
    """Measure this machine, one thread on a CPU. Raises `UsageError` for a device that torch does not have."""
    where = pick_device(device)
    cuda = where.type == "cuda"
    memory = torch.cuda.get_device_properties(where).total_memory if cuda else _memory()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        shapes: tuple[tuple[int, ...], ...] = PROBED[where.type]
        if cuda:
            free = _free(where)
            shapes = tuple(fitted for fitted in (fitting(shape, free) for shape in shapes) if fitted)
        times: dict[str, list[float]] = {kind: [_time(shape, where, kind) for shape in shapes] for kind in PRECISIONS}
        peaks: dict[str, float] = {kind: matmul_flops(str(where), kind) for kind in PRECISIONS}
        name = device_name(where)
    finally:
        torch.set_num_threads(threads)
    rows = np.array([features(_shape(*s[:5]), s[6], s[5]) for s in shapes])
    return Probe(
        device=name,
        device_type=where.type,
        num_devices=torch.cuda.device_count() if cuda else cores(),
        memory_bytes=memory,
        precision="bf16" if sum(times["bf16"]) < sum(times["fp32"]) else "fp32",
        peak_flops=peaks,
        coefficients={kind: _fit(rows, np.array(seconds)) for kind, seconds in times.items()},
    )


def fitting(shape: tuple[int, ...], free: float) -> tuple[int, ...]:
    """A probed shape with its batch halved until a step in fp32 needs at most `MEMORY_SHARE` of what is free [bytes].

    Empty where even one sequence does not fit.
    """
    *size, sequences, seq_len = shape
    while sequences:
        if memory_bytes(_spec((*size, sequences, seq_len), "fp32")) <= MEMORY_SHARE * free:
            return (*size, sequences, seq_len)
        sequences //= 2
    return ()


def _fit(rows: Any, seconds: Any) -> tuple[float, ...]:
    scaled = rows / seconds[:, None]
    size = np.abs(scaled).max(axis=0)
    size[size == 0] = 1.0
    found, _ = nnls(scaled / size, np.ones(len(seconds)))
    return tuple((found / size).tolist())


def _shape(d_model: int, num_layers: int, num_heads: int, num_experts: int, active: int) -> Architecture:
    experts: dict[str, Any] = {}
    if num_experts:
        experts = {"num_experts": num_experts, "num_active_experts": active, "d_expert": d_model // 2,
                   "num_shared_experts": 1, "num_dense_layers": 1}  # fmt: skip
    return Architecture(
        d_model=d_model, num_layers=num_layers, vocab_size=256, num_heads=num_heads,
        head_dim=d_model // num_heads, d_ff=3 * d_model, qk_norm="head", **experts,
    )  # fmt: skip


def _spec(shape: tuple[int, ...], precision: Precision) -> RunSpec:
    architecture = _shape(*shape[:5])
    return RunSpec(
        arm="moe" if architecture.num_experts else "dense", control="", rung="probe", purpose="tune",
        architecture=architecture, embedding_parts=1, seq_len=shape[6], batch_sequences=shape[5], steps=TIMED_STEPS + 1,
        learning_rate=1e-3, warmup_steps=1, weight_decay=0.1, balance_rate=1e-2 if architecture.num_experts else 0.0,
        frozen_router=False, seed=0, precision=precision, data="probe", data_digest="", validation_tokens=0,
    )  # fmt: skip


def _time(shape: tuple[int, ...], device: torch.device, precision: Precision) -> float:
    """Median of `TIMED_STEPS` steps, or of those that `SHAPE_SECONDS` has room for [s]."""
    spec = _spec(shape, precision)
    tokens = np.random.default_rng(0).integers(0, 256, spec.tokens + 1).astype(np.uint8)
    corpus = Corpus("probe", "", 256, True, tokens, tokens[:2], np.array([2]), 1, False)
    trainer = Trainer(spec, corpus, device, spec.learning_rate)
    step, _ = fastest_step(trainer)
    step()
    wait(device)
    times: list[float] = []
    while len(times) < TIMED_STEPS and sum(times) < SHAPE_SECONDS:
        start = time.perf_counter()
        step()
        wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _free(device: torch.device) -> int:
    torch.cuda.empty_cache()
    return int(torch.cuda.mem_get_info(device)[0])


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m moeplan.verification.probe", description="Measure how fast this machine trains proxies."
    )
    parser.add_argument("device", help="auto, cpu or cuda")
    parser.add_argument("--peaks", action="store_true", help="only the fastest matrix product of each type")
    given = parser.parse_args()
    try:
        if given.peaks:
            where = str(pick_device(given.device))
            print(json.dumps({kind: matmul_flops(where, kind) for kind in PRECISIONS}))
        else:
            print(json.dumps(records.to_json(probe(given.device))))
    except MoeplanError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
