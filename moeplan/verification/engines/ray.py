"""Runs as Ray tasks: on a cluster by its address, or on a local one that is started and stopped here."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from moeplan import records
from moeplan.verification import results
from moeplan.verification.engines import local
from moeplan.verification.launch import PER_GPU, Event, Listener, cores, optional, reason_in, worker_environment
from moeplan.verification.request import Where
from moeplan.verification.spec import RunResult, RunSpec
from moeplan.verification.worker import name_of_run, run_returned, spec_text

RETRIES = 2
"""How often Ray tries a run again whose machine was lost."""


def probe(where: Where, folder: Path) -> str:
    """What this machine is."""
    return local.probe(where, folder)


def launch(specs: Sequence[RunSpec], folder: Path, where: Where, listen: Listener) -> None:
    """Run every spec as a task; results come back to this process, which writes them."""
    ray = optional("ray", "ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    environment: dict[str, object] = {"env_vars": worker_environment()}
    options: dict[str, object] = {}
    if where.address:  # another machine gets this very package
        environment = {"py_modules": [str(Path(__file__).resolve().parents[2])], "env_vars": {"OMP_NUM_THREADS": "1"}}
    else:
        options = {"num_cpus": where.workers or cores(), "include_dashboard": False}
    ray.init(
        address=where.address or "local",
        runtime_env=environment,
        log_to_driver=False,
        logging_level="error",
        **options,
    )
    try:
        gpus = ray.cluster_resources().get("GPU", 0) if where.device != "cpu" else 0
        task = ray.remote(num_cpus=1, num_gpus=1 / PER_GPU if gpus else 0, max_retries=RETRIES)(run_returned)
        waiting = {task.remote(spec_text(spec), str(folder.resolve()), where.device): spec for spec in specs}
        for spec in specs:
            listen(Event(spec.digest, "started", steps=spec.steps, name=name_of_run(spec)))
        while waiting:
            ready, _ = ray.wait(list(waiting), timeout=1.0)
            for reference in ready:
                spec = waiting.pop(reference)
                try:
                    result = records.from_json(RunResult, json.loads(ray.get(reference)))
                except Exception as error:  # Ray wraps whatever went wrong over there
                    cause = getattr(error, "cause", None) or error
                    listen(Event(spec.digest, "failed", message=reason_in(str(cause))))
                    continue
                results.save(folder, result)
                speed = result.tokens_per_second
                listen(Event(spec.digest, "finished", loss=result.loss, tokens_per_second=speed, mfu=result.mfu))
    finally:
        ray.shutdown()
