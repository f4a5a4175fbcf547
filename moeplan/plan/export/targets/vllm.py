"""vLLM serve command.

For the folder of the target hf with trained weights: parallelism, context, sequences, dtypes and the share of memory
that the plan was made for. Flags of vLLM 0.33.
"""

from __future__ import annotations

from moeplan.cost.training.parallelism import Layout
from moeplan.plan.export.job import Job
from moeplan.plan.export.recipe import summary
from moeplan.plan.export.served import MODEL, command, quantization, served_devices
from moeplan.texts import comment

TAKES_LAYOUT = False


def export(job: Job, layout: Layout | None = None) -> str:
    """The command that serves the job's model."""
    devices, serving = served_devices(job), job.serving
    flags: dict[str, object] = {
        "--tensor-parallel-size": devices,
        **({"--enable-expert-parallel": ""} if job.architecture.num_moe_layers and devices > 1 else {}),
        "--max-model-len": serving.context,
        "--max-num-seqs": serving.concurrency,
        "--dtype": "bfloat16",
        **({"--quantization": "fp8"} if serving.weight_dtype == "fp8" else {}),
        **({"--kv-cache-dtype": "fp8"} if serving.kv_dtype == "fp8" else {}),
        "--gpu-memory-utilization": f"{1 - job.headroom:.4g}",
    }
    notes = [comment(note) for note in (summary(job), quantization(job)) if note]
    return "\n".join([*notes, command(f"vllm serve {MODEL}", flags)]) + "\n"
