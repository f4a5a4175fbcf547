"""How fast this machine trains proxies: `probe` times a few small steps, from which a run's time is estimated.

A step takes

    c0 + c1*L + c2*L_moe + c3*L_moe*E + c4*M*L*d + c5*M*L*H*T + c6*M*L_moe*K*d + c7*F

with L layers of width d, L_moe of them with E experts of which a token reaches K, M tokens a step, H heads, T the
sequence length and F the FLOPs of all products but attention's scores; the c >= 0 fit the timed steps with the least
relative error. Experts' products cost what others do; what they cost beside is moving rows.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import nnls

from moeplan.architecture.shape import Architecture
from moeplan.verification.data import Corpus
from moeplan.verification.peak import matmul_flops, wait
from moeplan.verification.spec import RunSpec
from moeplan.verification.train import Trainer, device_name, pick_device

Precision = Literal["fp32", "bf16"]

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
TIMED_STEPS = 4
"""Steps of each shape that are timed, at most, after one that is not; the fastest counts."""
SHAPE_SECONDS = 0.15
"""After this long no further step of a shape is timed, so that a busy machine is not kept for long."""
START_SECONDS = {"cpu": 0.3, "cuda": 4.0}
"""What a run takes beside its steps and validation: building the model, and on a GPU the capture (not measured)."""
VALIDATION_COST = 0.4
"""Time of validating a token / time of training on one: the forward pass, with whole batches only."""


@dataclass(frozen=True)
class Probe:
    """What the probe found."""

    device: str
    """Name of the device."""
    device_type: str
    """cpu or cuda."""
    num_devices: int
    """GPUs, or cores that this process may use."""
    memory_bytes: int
    """Memory of one GPU, or of the machine."""
    precision: Precision
    """The arithmetic whose steps took less time in all."""
    peak_flops: dict[str, float]
    """Best square matrix product of one process, by precision [FLOP/s]."""
    coefficients: dict[str, tuple[float, ...]]
    """c0 to c7 of the module's formula, by precision [s]."""

    def step_seconds(
        self, architecture: Architecture, seq_len: int, batch_sequences: int, precision: Precision
    ) -> float:
        """Time of one training step [s]."""
        return float(np.dot(self.coefficients[precision], _features(architecture, seq_len, batch_sequences)))

    def seconds(self, spec: RunSpec) -> float:
        """Time of a run in a process that is already started: start, steps and validation [s]."""
        step = self.step_seconds(spec.architecture, spec.seq_len, spec.batch_sequences, spec.precision)
        validation = VALIDATION_COST * spec.validation_tokens / (spec.batch_sequences * spec.seq_len)
        return START_SECONDS[self.device_type] + step * (spec.steps + validation)


def probe(device: str = "auto") -> Probe:
    """Measure this machine, one thread on a CPU. Raises `UsageError` for a device that torch does not have."""
    where = pick_device(device)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = {kind: [_time(shape, where, kind) for shape in PROBED[where.type]] for kind in ("fp32", "bf16")}
        peaks = {kind: matmul_flops(str(where), kind) for kind in times}
        name = device_name(where)
    finally:
        torch.set_num_threads(threads)
    rows = np.array([_features(_shape(*s[:5]), s[6], s[5]) for s in PROBED[where.type]])
    cuda = where.type == "cuda"
    return Probe(
        device=name,
        device_type=where.type,
        num_devices=torch.cuda.device_count()
        if cuda
        else len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        memory_bytes=torch.cuda.get_device_properties(where).total_memory if cuda else _memory(),
        precision="bf16" if sum(times["bf16"]) < sum(times["fp32"]) else "fp32",
        peak_flops=peaks,
        coefficients={kind: _fit(rows, np.array(seconds)) for kind, seconds in times.items()},
    )


def _fit(rows: Any, seconds: Any) -> tuple[float, ...]:
    scaled = rows / seconds[:, None]
    size = np.abs(scaled).max(axis=0)
    size[size == 0] = 1.0
    found, _ = nnls(scaled / size, np.ones(len(seconds)))
    return tuple((found / size).tolist())


def _features(a: Architecture, seq_len: int, batch_sequences: int) -> list[float]:
    """What c0 to c7 multiply."""
    tokens = batch_sequences * seq_len
    flops = a.flops_per_token(seq_len, attention="none")
    layers, moe = a.num_layers, a.num_moe_layers
    moved = tokens * moe * a.num_active_experts * a.d_model
    scores = tokens * layers * a.num_heads * seq_len
    return [1.0, layers, moe, moe * a.num_experts, tokens * layers * a.d_model, scores, moved, tokens * flops]


def _shape(d_model: int, num_layers: int, num_heads: int, num_experts: int, active: int) -> Architecture:
    experts: dict[str, Any] = {}
    if num_experts:
        experts = {"num_experts": num_experts, "num_active_experts": active, "d_expert": d_model // 2,
                   "num_shared_experts": 1, "num_dense_layers": 1}  # fmt: skip
    return Architecture(
        d_model=d_model, num_layers=num_layers, vocab_size=256, num_heads=num_heads,
        head_dim=d_model // num_heads, d_ff=3 * d_model, qk_norm="head", **experts,
    )  # fmt: skip


def _time(shape: tuple[int, ...], device: torch.device, precision: Precision) -> float:
    """Fastest of `TIMED_STEPS` steps [s]."""
    architecture, steps = _shape(*shape[:5]), TIMED_STEPS + 1
    spec = RunSpec(
        arm="moe" if architecture.num_experts else "dense", control="", rung="probe", purpose="tune",
        architecture=architecture, seq_len=shape[6], batch_sequences=shape[5], steps=steps, learning_rate=1e-3,
        warmup_steps=1, weight_decay=0.1, balance_rate=1e-2 if architecture.num_experts else 0.0, frozen_router=False,
        seed=0, precision=precision, data="probe", data_digest="", validation_tokens=0,
    )  # fmt: skip
    tokens = np.random.default_rng(0).integers(0, 256, steps * shape[5] * shape[6] + 1).astype(np.uint8)
    corpus = Corpus("probe", "", 256, True, tokens, tokens[:2], np.array([2]), 1, False)
    trainer = Trainer(spec, corpus, device, spec.learning_rate)
    step = trainer.fastest_step()
    best, begin = float("inf"), time.perf_counter()
    for index in range(steps):
        if index > 1 and time.perf_counter() - begin > SHAPE_SECONDS:
            break
        wait(device)
        start = time.perf_counter()
        step()
        wait(device)
        if index:
            best = min(best, time.perf_counter() - start)
    return best


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
