"""A Slurm batch file that starts Megatron-LM with an exported file of arguments."""

from __future__ import annotations

import shlex

from moeplan.cost.devices import devices
from moeplan.cost.training.parallelism import Layout
from moeplan.errors import UsageError
from moeplan.plan.export.job import Job
from moeplan.plan.export.megatron_hybrids import is_state_space
from moeplan.plan.export.recipe import summary
from moeplan.plan.export.targets.megatron import max_connections
from moeplan.texts import comment

_WIDE_NODE = 4
"""GPUs of a node whose links join several nodes (GB200 and GB300 trays)."""
_NODE = 8
"""GPUs of any other node."""

_SCRIPT = """\
#SBATCH --job-name=moeplan
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --exclusive
set -euo pipefail -f # no argument is a pattern of file names

export CUDA_DEVICE_MAX_CONNECTIONS={connections}
args={arguments}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun --nnodes={nodes} --nproc-per-node={gpus} --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d \\
    --rdzv-endpoint="$head:29500" {script} $(grep -v '^#' "$args") "$@"
"""


def sbatch(job: Job, layout: Layout | None, arguments: str) -> str:
    """The batch file for the arguments in the file `arguments`; what follows its name is given to Megatron-LM too.

    Raises `UsageError` without a layout, or for one that no whole number of nodes has.
    """
    if layout is None:
        raise UsageError("--sbatch needs a number of GPUs; give --layout, or plan with --gpus")
    known = devices().get(job.device)
    node = _WIDE_NODE if known is not None and known.link_domain > _NODE else _NODE
    gpus = min(node, layout.num_gpus)
    if layout.num_gpus % gpus:
        raise UsageError(f"{layout.num_gpus} GPUs are no whole number of nodes of {gpus}; give another --layout")
    body = _SCRIPT.format(
        nodes=layout.num_gpus // gpus,
        script="pretrain_hybrid.py" if is_state_space(job.architecture) else "pretrain_gpt.py",
        gpus=gpus,
        connections=max_connections(job, layout),
        arguments=shlex.quote(arguments),
    )
    return f"#!/bin/bash\n{comment(summary(job))}\n{body}"
