"""How long proxies take on a probed machine: `Probe`, without torch, so that whoever asks need not load it.

A step takes

    c0 + c1*L + c2*L_moe + c3*L_moe*E + c4*M*L*d + c5*M*L*H*T + c6*M*L_moe*K*d + c7*F

with L layers of width d, L_moe of them with E experts of which a token reaches K, M tokens a step, H heads, T the
sequence length and F the FLOPs of all products but attention's scores; the c >= 0 fit the timed steps with the least
relative error. Experts' products cost what others do; what they cost beside is moving rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from moeplan import records
from moeplan.architecture.shape import Architecture
from moeplan.verification.spec import RunSpec

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("bf16", "fp32")

START_SECONDS = {"cpu": 0.3, "cuda": 1.5}
"""Seconds of a run beside its steps and validation: building the model, on a GPU the capture (an H200: .5 to 1.5)."""
VALIDATION_COST = 0.4
"""Time of validating a token / time of training on one: the forward pass, with whole batches only."""


_DENSE = Architecture(d_model=32, num_layers=1, vocab_size=256, num_heads=2, head_dim=16, d_ff=88, qk_norm="head")
_MOE = Architecture(
    d_model=32, num_layers=1, vocab_size=256, num_heads=2, head_dim=16, num_experts=184, num_active_experts=8,
    d_expert=8, num_shared_experts=1, qk_norm="head",
)  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """The answers of a probe: times of steps, and the machine."""

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
        return sum(
            c * x
            for c, x in zip(self.coefficients[precision], features(architecture, seq_len, batch_sequences), strict=True)
        )

    def reference_seconds(self) -> float:
        """Time of one step of a dense and a MoE proxy in the faster arithmetic, by which two probes compare [s]."""
        return sum(self.step_seconds(shape, 128, 8, self.precision) for shape in (_DENSE, _MOE))

    def seconds(self, spec: RunSpec) -> float:
        """Time of a run in a process that is already started: start, steps and validation [s]."""
        step = self.step_seconds(spec.architecture, spec.seq_len, spec.batch_sequences, spec.precision)
        validation = VALIDATION_COST * spec.validation_tokens / (spec.batch_sequences * spec.seq_len)
        return START_SECONDS[self.device_type] + step * (spec.steps + validation)


def features(a: Architecture, seq_len: int, batch_sequences: int) -> list[float]:
    """The features that c0 to c7 multiply."""
    tokens = batch_sequences * seq_len
    flops = a.flops_per_token(seq_len, attention="none")
    layers, moe = a.num_layers, a.num_moe_layers
    moved = tokens * moe * a.num_active_experts * a.d_model
    scores = tokens * layers * a.num_heads * seq_len
    return [1.0, layers, moe, moe * a.num_experts, tokens * layers * a.d_model, scores, moved, tokens * flops]


def read_probe(text: str) -> Probe:
    """The probe that another process printed as JSON."""
    return records.from_json(Probe, json.loads(text), "the probe's answer")
