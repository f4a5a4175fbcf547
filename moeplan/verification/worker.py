"""One run in a process of its own: `python -m moeplan.verification.worker SPEC --folder FOLDER`.

Every engine ends here. With `--serve` the process reads specs from stdin, one JSON a line, and writes events to stdout
the same way; so the local engine starts its workers without importing the caller's main module again.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moeplan.verification import leash

if __name__ == "__main__" and "--serve" in sys.argv:
    leash.tie()  # before the slow imports: nobody hears its results when whoever started it is gone

from moeplan import records
from moeplan.errors import MoeplanError
from moeplan.verification import results
from moeplan.verification.spec import RunResult, RunSpec, read_spec

Report = Callable[..., None]
"""Called with the fields of an `Event` other than its digest."""
_BETWEEN_REPORTS = 0.5
"""Least time between two reports of progress [s]."""


def name_of_run(spec: RunSpec) -> str:
    """A run's name on screen while it trains: moe 1.9e10/d32L1 seed 1."""
    return f"{spec.control or spec.arm} {spec.rung} " + (f"seed {spec.seed}" if spec.purpose == "measure" else "tuning")


def run_spec(
    spec: RunSpec,
    *,
    folder: str | None = None,
    device: str = "auto",
    report: Report | None = None,
    peaks: Mapping[str, float] | None = None,
    corpus: Any = None,
) -> RunResult:
    """Train what a spec asks for, on `corpus`, else on the text that `folder` keeps or this machine has.

    `peaks` are the device's fastest products by precision [FLOP/s], if they are known. Raises `UsageError` if that is
    not the spec's text.
    """
    from moeplan.verification.train import run, worker_setup

    worker_setup()
    return run(
        spec,
        corpus or _corpus(spec.data, spec.data_digest, folder),
        progress=_throttled(report) if report else None,
        device=device,
        peak_flops=max((peaks or {}).values(), default=None),
    )


def run_saved(text: str, folder: str, device: str = "auto") -> str:
    """Train a spec given as JSON unless the folder has its result; returns the digest. For engines on shared disks."""
    spec = read_spec(text, "the run")
    if results.load(folder, spec) is None:
        results.save(folder, run_spec(spec, folder=folder, device=device))
    return spec.digest


def run_returned(text: str, corpus: Any, device: str = "auto") -> str:
    """Train a spec given as JSON on a corpus and return its result as JSON. For engines whose machines see no folder of
    this one."""
    return json.dumps(records.to_json(run_spec(read_spec(text, "the run"), device=device, corpus=corpus)))


def probe_text(device: str = "auto") -> str:
    """Describe the machine that runs this, as JSON of `moeplan.verification.speed.Probe`. For engines elsewhere."""
    from moeplan.verification.probe import probe

    return json.dumps(records.to_json(probe(device)))


@functools.lru_cache(maxsize=1)
def _corpus(source: str, digest: str, folder: str | None) -> Any:
    from moeplan.verification.text import corpus_of

    return corpus_of(source, digest, folder)


def _throttled(report: Report) -> Callable[..., None]:
    last = 0.0

    def progress(
        step: int, steps: int, loss: float, tokens_per_second: float, mfu: float | None, seconds_left: float
    ) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _BETWEEN_REPORTS:
            last = now
            report(
                kind="progress",
                step=step,
                steps=steps,
                loss=loss,
                tokens_per_second=tokens_per_second,
                mfu=mfu,
                seconds_left=seconds_left,
            )

    return progress


def serve(folder: str, device: str, peaks: Mapping[str, float] | None = None) -> None:
    """Runs specs from stdin until it ends, saving each result and reporting on stdout."""
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever else prints must not look like an event

    for line in sys.stdin:
        digest = ""

        def report(**fields: Any) -> None:
            out.write(json.dumps({"digest": digest, **fields}) + "\n")  # noqa: B023  # used within its own turn
            out.flush()

        try:
            spec = read_spec(line, "the run")
            digest = spec.digest
            report(kind="started", steps=spec.steps, name=name_of_run(spec))
            result = run_spec(spec, folder=folder, device=device, report=report, peaks=peaks)
            results.save(folder, result)
            report(kind="finished", loss=result.loss, tokens_per_second=result.tokens_per_second, mfu=result.mfu)
        except BrokenPipeError:  # whoever asked is gone
            return
        except MoeplanError as error:
            report(kind="failed", message=str(error))
        except Exception as error:  # one run's failure, such as memory, must not end the others
            traceback.print_exc()
            report(kind="failed", message=f"{type(error).__name__}: {error}".splitlines()[0])


def main(arguments: list[str] | None = None) -> int:
    """The command line of a worker; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m moeplan.verification.worker", description="Train one proxy run.")
    parser.add_argument("spec", nargs="?", help="the run's spec, a JSON file")
    parser.add_argument("--folder", required=True, help="where results are kept")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--serve", action="store_true", help="read specs from stdin")
    parser.add_argument("--peaks", type=json.loads, help="fastest matrix products of the device, a JSON object")
    given = parser.parse_args(arguments)
    if given.serve:
        serve(given.folder, given.device, given.peaks)
        return 0
    if given.spec is None:
        parser.error("give a spec file, or --serve")
    try:
        path = Path(given.spec)
        print(run_saved(path.read_text(encoding="utf-8"), given.folder, given.device))
    except (MoeplanError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
