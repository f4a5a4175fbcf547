"""What one model costs: training time and memory, serving memory, decode speed."""

from __future__ import annotations

import math

from moeplan.architecture.shape import Architecture
from moeplan.cost.devices import Gpus, gpu_time, load_device
from moeplan.cost.inference_memory import kv_cache_bytes_per_token, total_inference_bytes
from moeplan.cost.serving.roofline import BATCHES, decode_point, devices_needed
from moeplan.cost.training.states import load_scheme
from moeplan.errors import InfeasibleError
from moeplan.plan.budget import Budget
from moeplan.plan.law_selection import LawSelection
from moeplan.plan.training_and_serving import DEFAULT_DEVICE, least_bytes, utilisation
from moeplan.studies.comparison.result import Candidate, ComparisonSetting, DecodeSpeed

_VECTORS = ("input_embedding", "output_head", "router", "norms")
"""Groups of params that an optimizer scheme may keep more state for."""


def candidate(
    name: str, role: str, says: str, architecture: Architecture, tokens: float, budget: Budget, batch: int = 0
) -> Candidate:
    """A model trained on `tokens`, under a budget's hardware, serving and optimizer.

    `batch` [sequences] is that of the training layout; 0 asks for none.
    """
    tokens = math.floor(tokens)
    per_token = float(architecture.flops_per_token(budget.seq_len))
    mfu, basis = utilisation(architecture, budget)
    gpus = budget.gpus or Gpus(1, load_device(DEFAULT_DEVICE))
    time = gpu_time(per_token * tokens, gpus, mfu, price_per_gpu_hour=budget.price_per_gpu_hour)
    served = int(total_inference_bytes(architecture, budget.serving, budget.num_devices))
    devices, speeds = _decode(architecture, budget)
    return Candidate(
        name=name,
        role=role,
        says=says,
        architecture=architecture,
        is_dense=architecture.is_dense,
        total_params=architecture.total_params(),
        active_params=architecture.active_params(),
        tokens=tokens,
        tokens_per_param=tokens / architecture.active_params(),
        flops_per_token=per_token,
        train_flops=per_token * tokens,
        epochs=tokens / budget.tokens_available if math.isfinite(budget.tokens_available) else None,
        mfu=mfu,
        mfu_basis=basis,
        gpu_hours=time.gpu_hours,
        days=time.days if budget.gpus else None,
        money=time.money,
        state_bytes=state_bytes(architecture, budget.optimizer),
        training_bytes_per_gpu=least_bytes(architecture, budget, batch) if budget.gpus and batch else None,
        serving_bytes=served,
        kv_bytes_per_token=int(kv_cache_bytes_per_token(architecture, budget.serving.kv_dtype)),
        fits_memory=served <= budget.usable_bytes if budget.memory else None,
        num_devices=devices,
        decode=speeds,
    )


def state_bytes(architecture: Architecture, optimizer: str) -> float:
    """Weights, gradients and optimizer state of one copy of a model under a scheme, in all [bytes]."""
    scheme = load_scheme(optimizer)
    groups = architecture.params_by_group()
    vectors = sum(params for name, params in groups.items() if name in _VECTORS)
    matrices = architecture.total_params() - vectors
    parts = (scheme.state_bytes(matrices, 1), scheme.state_bytes(vectors, 1, vector=True))
    return float(sum(size for part in parts for size in part.values()))


def _decode(architecture: Architecture, budget: Budget) -> tuple[int, tuple[DecodeSpeed, ...]]:
    device = budget.gpus.device if budget.gpus else load_device(DEFAULT_DEVICE)
    try:
        devices = devices_needed(architecture, device, budget.serving)
    except InfeasibleError:
        return 0, ()
    context = budget.serving.context
    points = [decode_point(architecture, device, batch, context, budget.serving, devices) for batch in BATCHES]
    speeds = [DecodeSpeed(p.batch, p.tokens_per_second_per_gpu, p.bound, p.fits) for p in points]
    return devices, tuple(speeds)


def setting(budget: Budget, laws: LawSelection | None = None) -> ComparisonSetting:
    """What a comparison was made under."""
    return ComparisonSetting(
        flops=budget.flops,
        memory=str(budget.memory) if budget.memory else None,
        usable_bytes=budget.usable_bytes if budget.memory else None,
        memory_devices=budget.num_devices,
        tokens_available=budget.tokens_available if math.isfinite(budget.tokens_available) else None,
        seq_len=budget.seq_len,
        context=budget.serving.context,
        concurrency=budget.serving.concurrency,
        weight_dtype=budget.serving.weight_dtype,
        kv_dtype=budget.serving.kv_dtype,
        device=(budget.gpus.device if budget.gpus else load_device(DEFAULT_DEVICE)).name,
        num_gpus=budget.gpus.count if budget.gpus else None,
        optimizer=budget.optimizer,
        laws=tuple(law.source for law in laws.objective) if laws else (),
        weights=laws.weights if laws else {},
    )
