"""Runs as jobs of Slurm, one an array element, by submitit; every machine must see the folder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.verification.launch import Event, Listener, optional, reason_in, worker_environment
from moeplan.verification.options import Where
from moeplan.verification.spec import RunSpec, spec_text
from moeplan.verification.worker import name_of_run, probe_text, run_saved

_OWN = ("cluster", "timeout_min", "mem_gb", "gpus_per_node", "cpus_per_task")
"""Options that submitit knows under these names; all others are Slurm's own."""
_POLL = 0.5
"""Time between two looks at the jobs [s]."""


def probe(where: Where, folder: Path) -> str:
    """Describe the machine of a job, by a job that measures it: the one that submits may be another kind."""
    job = _executor(where, folder).submit(probe_text, where.device)
    try:
        return str(job.result())
    except Exception as error:  # submitit wraps whatever went wrong over there
        raise UsageError(f"the job that measures a machine failed: {reason_in(str(error))}") from None
    finally:
        job.cancel()


def launch(specs: Sequence[RunSpec], folder: Path, where: Where, listen: Listener) -> None:
    """Run every spec as a job that writes its own result into the folder."""
    executor = _executor(where, folder)
    jobs = executor.map_array(
        run_saved, [spec_text(s) for s in specs], [str(folder)] * len(specs), [where.device] * len(specs)
    )
    waiting = dict(zip(jobs, specs, strict=True))
    try:
        for spec in specs:
            listen(Event(spec.digest, "started", steps=spec.steps, name=name_of_run(spec)))
        while waiting:
            for job in [job for job in waiting if job.done()]:
                spec = waiting.pop(job)
                trouble = job.exception()
                if trouble is None:
                    listen(Event(spec.digest, "finished"))
                else:
                    listen(Event(spec.digest, "failed", message=reason_in(str(trouble))))
            time.sleep(_POLL)
    finally:
        for job in waiting:
            job.cancel()


def _executor(where: Where, folder: Path) -> Any:
    """The executor that submits jobs; with the device cuda each has one GPU unless something else is asked for."""
    submitit = optional("submitit", "slurm")
    options: dict[str, Any] = {
        name if name in _OWN else f"slurm_{name}": int(value) if value.isdigit() else value
        for name, value in where.slurm.items()
    }
    cluster = options.pop("cluster", None)
    usual: dict[str, Any] = {"timeout_min": 60, "cpus_per_task": 1, "name": "moeplan-verify"}
    if where.device == "cuda" and not any("gpu" in name or "gres" in name for name in options):
        usual["gpus_per_node"] = 1
    os.environ.update(worker_environment())  # jobs inherit it
    try:
        executor = submitit.AutoExecutor(folder=str(folder / "slurm"), cluster=cluster)
        executor.update_parameters(**{**usual, **options})
        if where.workers and executor.cluster == "slurm":
            executor.update_parameters(slurm_array_parallelism=where.workers)
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"Slurm cannot be used: {reason}; cluster=local runs the jobs on this machine") from None
    return executor
