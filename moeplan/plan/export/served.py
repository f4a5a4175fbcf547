"""What commands that serve a model say alike: devices, context, sequences, dtypes."""

from __future__ import annotations

from moeplan.errors import InfeasibleError
from moeplan.plan.export.job import Job
from moeplan.plan.export.targets.hf import hf_config

MODEL = "./model"
"""Folder of config.json, weights and tokenizer that the commands name."""


def served_devices(job: Job) -> int:
    """Devices that share each layer; raises `InfeasibleError` where the heads do not divide over them.

    A model that no Hugging Face class has is refused too: servers load it by that class.
    """
    hf_config(job.architecture, job.context)
    n = job.serving_devices
    if n < 1:
        raise InfeasibleError(f"1024 {job.device} do not hold {job.name} with its cache; lower context or concurrency")
    if job.architecture.num_heads % n:
        raise InfeasibleError(
            f"{job.architecture.num_heads} heads do not divide over {n} devices; plan with --memory for another number"
        )
    return n


def quantization(job: Job) -> str:
    """What the weights' dtype needs: fp8 is made from bf16 on loading, the others are checkpoints of their own."""
    dtype = job.serving.weight_dtype
    if dtype in ("bf16", "fp8"):
        return ""
    return f"weights in {dtype}: quantise the checkpoint first, for example with llm-compressor; its files say so"


def command(program: str, flags: dict[str, object]) -> str:
    """A shell command, one flag a line."""
    lines = [program, *(f"{flag} {value}".rstrip() for flag, value in flags.items())]
    return " \\\n    ".join(lines)
