"""Runs whose throughput is known, published or measured: a table of rows, read into what the model needs.

A row is a JSON object: `model` (a bundled name, or `architecture` with the fields of `Architecture`), `hw` (a device),
`gpus`, `precision`, `gbs` and `mbs` (sequences of a step and of a micro-batch), `seq`, `tp`, `pp`, `cp`, `vp`, `ep`,
`etp`, `fsdp` (0: weights are not sharded), `tok_s_gpu` (tokens a second of one GPU), and optionally `release`,
`framework`, `confidence`, `flops_per_token` and `extras` (what the software did: graph none, te or full; dispatcher;
overlap; recompute; fused_mlp; mtp; token_drop; force_balance).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from moeplan.architecture.published import find_model
from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Device, bundled, load_device
from moeplan.cost.training.parallelism import Layout
from moeplan.cost.training.throughput.settings import Constants, Software
from moeplan.cost.training.throughput.step import StepTime, step_time
from moeplan.errors import InfeasibleError, MoeplanError, UsageError
from moeplan.files import read_text

_NUMBERS = ("gpus", "gbs", "mbs", "seq", "tp", "pp", "ep")


@dataclass(frozen=True)
class Run:
    """One run: what was trained, how it was spread, and how fast it was."""

    model: str
    """Name of the model."""
    architecture: Architecture
    """Its shape."""
    device: Device
    """On which GPUs."""
    layout: Layout
    """How it was spread."""
    batch: int
    """Sequences of a step."""
    seq_len: int
    """Tokens of a sequence."""
    precision: str
    """Of matrix products."""
    software: Software
    """What its software did."""
    recomputed: frozenset[str]
    """Modules that its backward pass computed again."""
    balanced: bool
    """Whether routing was forced to be even."""
    sharded_weights: bool
    """Whether weights were gathered for every pass."""
    tokens_per_second: float
    """Tokens a second of one GPU."""
    label: str
    """Model, device, precision and release."""
    weight: float
    """How far a fit listens to it: less for runs of low confidence."""

    def step(self, fitted: Constants | None = None) -> StepTime:
        """Its step by the model."""
        return step_time(
            self.architecture,
            self.layout,
            self.device,
            self.batch,
            self.seq_len,
            precision=self.precision,
            software=self.software,
            balanced=self.balanced,
            sharded_weights=self.sharded_weights,
            recomputed=self.recomputed,
            fitted=fitted,
        )

    @property
    def family(self) -> str:
        """Dense, MLA, MoE with biases (gpt-oss) or MoE with GQA: what is left out together."""
        a = self.architecture
        if a.is_dense:
            return "dense"
        if a.attention == "mla":
            return "MLA"
        return "biased experts" if a.expert_bias else "GQA"


@dataclass(frozen=True)
class RunTable:
    """The runs of a table."""

    runs: tuple[Run, ...]
    """Those that the model describes."""
    left_out: tuple[tuple[str, str], ...]
    """(model, why) of each row that it does not."""


def read_runs(path: str | Path) -> RunTable:
    """Read a table of rows; raises `UsageError` for a file that is none.

    Rows of models that cannot be described, such as hybrids, and of layouts that cannot be are left out and named.
    """
    try:
        rows = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: is not JSON: {error.msg} in line {error.lineno}") from None
    if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
        raise UsageError(f"{path}: must be a list of rows, each with model, hw, gpus, precision and tok_s_gpu")
    runs, left_out = [], []
    for number, row in enumerate(rows, 1):
        try:
            architecture = _architecture(row)
        except MoeplanError as error:
            left_out.append((str(row.get("model")), str(error)))
            continue
        try:
            runs.append(_run(row, architecture, f"{path}: row {number}"))
        except InfeasibleError as error:
            left_out.append((str(row.get("model")), str(error)))
    return RunTable(tuple(runs), tuple(left_out))


@functools.cache
def _names() -> dict[str, Any]:
    return dict(bundled("throughput.yaml").section("models"))


def _architecture(row: dict[str, Any]) -> Architecture:
    given = row.get("architecture")
    if not isinstance(given, dict):
        name = str(row.get("model"))
        given = _names().get(name, name)
    if isinstance(given, dict):
        architecture = Architecture.from_dict(dict(given))
    else:
        found = find_model(given)
        if found.not_counted:
            raise UsageError(f"{given} has parts that its shape does not express: {found.not_counted[0].what}")
        architecture = found.architecture
    mtp = bool(row.get("extras", {}).get("mtp"))
    return dataclasses.replace(architecture, num_mtp_layers=int(mtp))


def _run(row: dict[str, Any], architecture: Architecture, place: str) -> Run:
    extras = row.get("extras") or {}

    def whole(name: str, default: int | None = None) -> int:
        value = row.get(name, default)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{place}: {name} {row.get(name)!r} must be a whole number of at least 1")
        return value

    gpus, batch, micro_batch, seq_len, tp, pp, ep = (whole(name) for name in _NUMBERS)
    cp, chunks, etp = (whole(name, 1) for name in ("cp", "vp", "etp"))
    speed = row.get("tok_s_gpu")
    if not isinstance(speed, int | float) or isinstance(speed, bool) or not (math.isfinite(speed) and speed > 0):
        raise UsageError(f"{place}: tok_s_gpu {speed!r} must be a number above 0")
    if gpus % (tp * pp * cp) or gpus // pp % (ep * etp):
        raise InfeasibleError(
            f"{place}: {gpus} GPUs cannot be spread over tp {tp}, pp {pp}, cp {cp}, ep {ep}, etp {etp}"
        )
    layout = Layout(
        tp=tp,
        pp=pp,
        cp=cp,
        ep=ep,
        etp=etp,
        dp=gpus // (tp * pp * cp),
        micro_batch=micro_batch,
        virtual_stages=chunks,
    )
    precision = str(row.get("precision"))
    precision = "fp8" if precision.startswith("fp8") else precision
    release, framework = str(row.get("release", "")), str(row.get("framework", ""))
    graph = {"none": "none", "te": "partial", "full": "full"}[str(extras.get("graph", "none"))]
    software = Software(
        graph=graph,  # type: ignore[arg-type]
        dispatcher="alltoall" if extras.get("dispatcher", "alltoall") == "alltoall" else "flex",
        overlap_dispatch=bool(extras.get("overlap")),
        fused_experts=bool(extras.get("fused_mlp")),
        # its recipes overlap tensor parallelism of dense models alone
        overlap_tensor=architecture.is_dense and framework == "megatron-bridge",
        drop_tokens=bool(extras.get("token_drop")),
        maturity=_maturity(release),
    )
    return Run(
        model=str(row.get("model")),
        architecture=architecture,
        device=load_device(str(row.get("hw"))),
        layout=layout,
        batch=batch,
        seq_len=seq_len,
        precision=precision,
        software=software,
        recomputed=frozenset(extras.get("recompute") or ()),
        balanced=bool(extras.get("force_balance", False)) or architecture.is_dense,
        sharded_weights=bool(row.get("fsdp")),
        tokens_per_second=float(speed),
        label=" ".join(str(row[x]) for x in ("model", "hw", "precision", "release") if x in row),
        weight=1.0 if row.get("confidence", "high") == "high" else 0.25,
    )


def _maturity(release: str) -> Literal["now", "2026", "2025"]:
    """Containers are named by year and month; other frameworks by their year where it is before 2025."""
    if release.startswith("25.") or release.endswith(("-2024", "-2024.12")):
        return "2025"
    return "2026" if "26.0" <= release[:5] < "26.06" else "now"


def devices_of(runs: Iterable[Run]) -> list[str]:
    """Names of the devices, in order of appearance."""
    return list(dict.fromkeys(run.device.name for run in runs))
