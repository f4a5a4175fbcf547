"""aiconfigurator command: a cross-check of serving times.

A shell script for aiconfigurator 0.12, which looks up measured kernels: it writes a config.json and asks for the
plan's devices, context and sequences. aiconfigurator knows Qwen3Moe, Mixtral, DeepseekV3, Qwen3 and Llama; a model with
shared experts beside grouped-query attention is written as Qwen3Moe with them among its experts and active, the
same weights and products for a token.
"""

from __future__ import annotations

import dataclasses
import json

from moeplan.architecture.shape import Architecture
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import InfeasibleError
from moeplan.plan.export.job import Job
from moeplan.plan.export.plain import require_plain
from moeplan.plan.export.recipe import summary
from moeplan.plan.export.served import MODEL, command, served_devices
from moeplan.plan.export.targets.hf import hf_config
from moeplan.texts import comment

TAKES_LAYOUT = False
SYSTEMS = {
    "A100-80GB SXM": "a100_sxm",
    "H100 SXM": "h100_sxm",
    "H100 PCIe": "h100_pcie",
    "H200": "h200_sxm",
    "B200": "b200_sxm",
    "B300": "b300_sxm",
    "GB200 (per GPU)": "gb200",
    "GB300 (per GPU)": "gb300",
    "L40S": "l40s",
}
"""aiconfigurator's names of devices, with ours."""


def export(job: Job, layout: Layout | None = None) -> str:
    """The job's model and load as a script that asks for its serving times."""
    if job.device not in SYSTEMS:
        raise InfeasibleError(f"aiconfigurator has no {job.device}; plan with --gpus of {', '.join(SYSTEMS)}")
    stand_in = known_shape(job.architecture)
    prompt = job.serving.context // 2
    flags: dict[str, object] = {
        "--model-path": MODEL,
        "--total-gpus": served_devices(job),
        "--system": SYSTEMS[job.device],
        "--backend": "vllm",
        "--serving-mode": "agg",
        "--database-mode": "HYBRID",
        "--isl": prompt,
        "--osl": job.serving.context - prompt,
    }
    notes = [comment(summary(job))]
    if stand_in != job.architecture:
        notes.append(comment("shared experts stand among the routed ones, always active"))
    config = json.dumps(hf_config(stand_in, job.context), indent=2)
    files = [f"mkdir -p {MODEL}", f"cat > {MODEL}/config.json <<'JSON'", config, "JSON"]
    return "\n".join([*notes, *files, command("aiconfigurator cli default", flags)]) + "\n"


def known_shape(shape: Architecture) -> Architecture:
    """A shape of a class that aiconfigurator knows, with equal weights and products.

    Raises `InfeasibleError` where shared experts are no whole number of routed ones.
    """
    require_plain(shape, "aiconfigurator")
    shared = shape.num_shared_experts * shape.d_shared_expert
    if shape.attention != "gqa" or not shared:
        return shape
    if shared % shape.d_expert:
        raise InfeasibleError(
            f"shared experts of {shared} features are no multiple of the expert width {shape.d_expert}"
        )
    more = shared // shape.d_expert
    return dataclasses.replace(
        shape,
        num_experts=shape.num_experts + more,
        num_active_experts=shape.num_active_experts + more,
        num_shared_experts=0,
        d_shared_expert=0,
        qk_norm="head",
    )
