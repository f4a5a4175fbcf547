"""Runs as Ray tasks: on a cluster by its address, or on a local one that is started and stopped here.

Ray carries the text to its machines and the results back, so that they need share no folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moeplan import records
from moeplan.errors import UsageError
from moeplan.verification import results
from moeplan.verification.engines import local
from moeplan.verification.launch import PER_GPU, Event, Listener, cores, optional, reason_in, worker_environment
from moeplan.verification.options import Where
from moeplan.verification.spec import RunResult, RunSpec, spec_text
from moeplan.verification.text import corpus_of
from moeplan.verification.worker import name_of_run, probe_text, run_returned

RETRIES = 2
"""How often Ray tries a run again whose machine was lost."""


def probe(where: Where, folder: Path) -> str:
    """Describe one machine of the cluster, with the number of GPUs or cores that all have; see `local.probe`."""
    if not where.address:
        return local.probe(where, folder)
    with _session(where) as (ray, gpus):
        task = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_retries=RETRIES)(probe_text)
        try:
            found: dict[str, Any] = json.loads(ray.get(task.remote(where.device)))
        except Exception as error:  # Ray wraps whatever went wrong over there
            cause = getattr(error, "cause", None) or error
            raise UsageError(f"no machine of the Ray cluster could be measured: {reason_in(str(cause))}") from None
        found["num_devices"] = int(gpus or ray.cluster_resources().get("CPU", 1))
        return json.dumps(found)


def launch(specs: Sequence[RunSpec], folder: Path, where: Where, listen: Listener) -> None:
    """Run every spec as a task; results come back to this process, which writes them."""
    texts = {(spec.data, spec.data_digest) for spec in specs}
    corpora = {key: corpus_of(*key, folder) for key in texts}
    with _session(where) as (ray, gpus):
        kept = {key: ray.put(corpus) for key, corpus in corpora.items()}
        task = ray.remote(num_cpus=1, num_gpus=1 / PER_GPU if gpus else 0, max_retries=RETRIES)(run_returned)
        waiting = {
            task.remote(spec_text(spec), kept[spec.data, spec.data_digest], where.device): spec for spec in specs
        }
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


@contextmanager
def _session(where: Where) -> Iterator[tuple[Any, float]]:
    """Ray, connected or started, and the GPUs that runs may use."""
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
        yield ray, ray.cluster_resources().get("GPU", 0) if where.device != "cpu" else 0
    finally:
        ray.shutdown()
