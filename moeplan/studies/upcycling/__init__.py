"""Upcycle a dense model, or train a MoE from scratch? `upcycle("llama-3-8b", flops="1e22")`.

Where liew2025's law was measured (dense models of .1-1B params, 1e10-3e11 tokens, 8 experts, 2 active) it says at which
compute the MoE from scratch overtakes. Beyond, no law does: the answer follows the share of the budget in the dense
model's own training compute, by what publications found (`data/upcycling.yaml`), and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from moeplan.architecture.shape import Architecture
from moeplan.architecture.upcycled import upcycled_shape
from moeplan.cost.devices import HEADROOM, parse_gpus
from moeplan.cost.inference_memory import InferenceSettings, inference_bytes
from moeplan.errors import InfeasibleError, UsageError
from moeplan.plan.budget import FEWEST_TOKENS, Budget
from moeplan.plan.existing import read_model
from moeplan.plan.planner import recommend
from moeplan.plan.training_and_serving import training_run
from moeplan.studies.upcycling.evidence import findings, moefication_of
from moeplan.studies.upcycling.overtaking import LAW, crossing_of
from moeplan.studies.upcycling.result import SCHEMA, Crossing, DenseModel, Finding, Scratch, Upcycling
from moeplan.units import MemoryLimit, parse_count, parse_flops, parse_memory

MOST_TOKENS = 1e15
"""Most tokens that a dense model may have seen; ten times what any plan is made for."""


def upcycle(
    dense: str | Path,
    flops: str | float,
    *,
    dense_tokens: str | float | None = None,
    memory: str | MemoryLimit | None = None,
    gpus: str | None = None,
    experts: int = 8,
    top_k: int | None = None,
    granularity: int = 1,
    shared: bool = False,
    threads: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Upcycling:
    """Whether to upcycle a dense model with a budget, or to train a MoE from scratch.

    Parameters
    ----------
    dense : str or Path
        A `config.json`, its folder, or the name of a bundled model.
    flops : str or float
        Compute for further training [FLOPs].
    dense_tokens : str or float, optional
        Tokens the dense model was trained on ("15T"); default as published.
    memory : str or MemoryLimit, optional
        What the served model must fit; default what the upcycled model needs, for the model from scratch.
    gpus : str, optional
        Devices to train on ("64xH100").
    experts, top_k, granularity, shared
        What becomes of each block; see `moeplan.architecture.upcycled.upcycled_shape`.

    Raises
    ------
    UsageError
        For a model that is a MoE, is not counted whole, or whose tokens nobody says.
    """
    model = read_model(dense)
    base = model.architecture
    if model.gaps or not isinstance(base, Architecture):
        what = "; ".join(gap.what for gap in model.gaps) or "layers that differ from each other"
        raise UsageError(f"{model.name}: it cannot be upcycled exactly: {what}")
    try:
        shape = upcycled_shape(base, experts, top_k, granularity, shared=shared)
    except UsageError as error:
        raise UsageError(f"{model.name}: {error}") from None
    budget = parse_flops(flops)
    if dense_tokens is None and model.tokens is None:
        raise UsageError(f"{model.name}: nobody says how many tokens it was trained on; give --dense-tokens 2T")
    count = parse_count(dense_tokens, "dense_tokens") if dense_tokens is not None else float(model.tokens or 0)
    if not FEWEST_TOKENS <= count <= MOST_TOKENS:
        raise UsageError(
            f"dense_tokens {count:g} must be from {FEWEST_TOKENS:g} to {MOST_TOKENS:g}, for example 15T; no model was "
            "trained on fewer or more"
        )
    seq_len = model.seq_len
    spent = float(base.flops_per_token(seq_len)) * count
    per_token = float(shape.flops_per_token(seq_len))
    tokens = int(budget // per_token)
    if tokens < FEWEST_TOKENS:
        raise InfeasibleError(
            f"{budget:g} FLOPs pay for {tokens:,} tokens of this model, too few to train on; give at least "
            f"{1.005 * FEWEST_TOKENS * per_token:.2e}"
        )
    limit = None if memory is None else parse_memory(memory)
    devices = 1 if limit is None else limit.num_devices
    needed = sum(inference_bytes(shape, InferenceSettings(), devices).values())
    usable = None if limit is None else int(limit.bytes_per_device * (1 - HEADROOM))
    crossing = crossing_of(base.total_params(), count, tokens, per_token, shape)
    found = findings()
    verdict, reason = _verdict(crossing, tokens, budget / spent, found)
    machines = None if gpus is None else parse_gpus(gpus)
    run = training_run(shape, tokens, 0.0, Budget(budget, limit or needed, gpus=machines, seq_len=seq_len))
    scratch, note = _scratch(budget, limit, needed, base.vocab_size, threads, progress)
    routers = shape.num_layers * shape.num_experts * shape.d_model
    return Upcycling(
        schema=SCHEMA,
        verdict=verdict,
        reason=reason,
        extrapolated=not crossing.inside,
        dense=DenseModel(model.name, base.total_params(), count, spent),
        budget_flops=budget,
        budget_share=budget / spent,
        architecture=shape,
        granularity_of_copies=granularity,
        total_params=shape.total_params(),
        active_params=shape.active_params(),
        copied_params=shape.total_params() - routers,
        seq_len=seq_len,
        flops_per_token=per_token,
        tokens=tokens,
        scratch_tokens=int((budget + spent) // per_token),
        memory_bytes=needed,
        usable_bytes=usable,
        num_devices=devices,
        fits=None if usable is None else needed <= usable,
        device=run.device,
        gpu_hours=run.gpu_hours,
        days=run.days,
        mfu_basis=run.mfu_basis if run.gpu_hours is not None else run.layout_note or run.mfu_basis,
        crossing=crossing,
        scratch=scratch,
        scratch_note=note,
        findings=found,
        moefication=moefication_of(base),
    )


def _verdict(crossing: Crossing, tokens: int, share: float, found: tuple[Finding, ...]) -> tuple[str, str]:
    """upcycle, scratch or open, and why: by the law where it was measured, else by the budget's share."""
    if crossing.inside:
        if crossing.tokens is None or tokens < crossing.tokens:
            return "upcycle", f"by {LAW} a MoE from scratch overtakes later than this budget reaches"
        return "scratch", f"by {LAW} the MoE from scratch has overtaken by then"
    enough = max(finding.enough for finding in found if finding.enough is not None)
    too_much = min(finding.too_much for finding in found if finding.too_much is not None)
    if share <= enough:
        return "upcycle", (
            f"the budget is at most {enough * 100:.0f} % of the dense model's training compute, with which "
            "published models were better upcycled"
        )
    if share >= too_much:
        return "scratch", (
            f"the budget is at least {too_much:g} times the dense model's training compute, from which publications "
            "train from scratch"
        )
    return "open", (
        f"the budget lies between {enough * 100:.0f} % and {too_much * 100:.0f} % of the dense model's training "
        "compute, where no publication decides; proxies of both would"
    )


def _scratch(
    flops: float,
    limit: MemoryLimit | None,
    needed: int,
    vocab_size: int,
    threads: int,
    progress: Callable[[str], None] | None,
) -> tuple[Scratch | None, str]:
    """The best MoE from scratch for the same budget, memory and vocabulary; or why there is none."""
    memory = limit if limit is not None else needed / (1 - HEADROOM)
    try:
        plan = recommend(
            Budget(flops, memory, vocab_size=vocab_size), alternatives=0, threads=threads, progress=progress
        )
    except InfeasibleError as error:
        return None, str(error)
    own = plan.architecture
    return Scratch(
        own.total_params(), own.active_params(), plan.design.tokens, own.num_experts, own.num_active_experts,
        own.num_shared_experts,
    ), ""  # fmt: skip
