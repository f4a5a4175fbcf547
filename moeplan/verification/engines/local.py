"""Runs in processes of this machine: one single-thread process a core, or `PER_GPU` processes a GPU."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO

from moeplan.errors import UsageError
from moeplan.verification.launch import PER_GPU, Event, Listener, cores, optional, reason_in, worker_environment
from moeplan.verification.leash import leashed
from moeplan.verification.options import Where
from moeplan.verification.spec import RunSpec, spec_text
from moeplan.verification.speed import read_probe

_RETRIES = 1
"""How often a run whose process died is tried again."""


_MOST_PROBES = 8
"""Most probes at a time: more tell nothing more of what cores share."""
_probed: dict[tuple[str, int], str] = {}
"""Answers of the probe by device and number of workers."""


def probe(where: Where, folder: Path) -> str:
    """Describe this machine as JSON of `moeplan.verification.speed.Probe`; raises `UsageError` if it cannot be told.

    On a CPU as many probes run at a time as workers will, because cores share caches, memory and often an arithmetic
    unit; the fastest of them counts, the others had more to wait for.
    """
    optional("torch", "verify")
    asked = where.device, where.workers
    if asked not in _probed:
        together = 1 if _gpus(where.device) else min(where.workers or cores(), cores(), _MOST_PROBES)
        answers = _measured(where.device, together=together)
        _probed[asked] = min(answers, key=lambda text: read_probe(text).reference_seconds())
    return _probed[asked]


def _measured(device: str, *options: str, together: int = 1) -> list[str]:
    """What so many probes at a time say, from processes of their own: this one then holds nothing of a GPU."""
    command = [sys.executable, "-m", "moeplan.verification.probe", device, *options]
    environment = {**os.environ, **worker_environment(), **leashed()}
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            env=environment,
        )
        for _ in range(together)
    ]  # fmt: skip
    with ThreadPoolExecutor(together) as pool:
        try:
            said = list(pool.map(lambda process: process.communicate(), processes))
        except BaseException:  # an interrupt ends them as well, or it would be waited for them
            for process in processes:
                process.kill()
            raise
    for process, (_, errors) in zip(processes, said, strict=True):
        if process.returncode:
            reason = reason_in(errors).removeprefix("Error: ")
            named = reason.startswith(f"device {device!r}")
            raise UsageError(reason if named else f"device {device!r} cannot be measured: {reason}")
    return [output for output, _ in said]


def _peaks(device: str) -> str:
    """The fastest matrix products as JSON, measured before any worker slows them down."""
    for (known, _), text in _probed.items():
        if known == device:
            return json.dumps(read_probe(text).peak_flops)
    return _measured(device, "--peaks")[0].strip()


def launch(specs: Sequence[RunSpec], folder: Path, where: Where, listen: Listener) -> None:
    """Run every spec; workers take the next one when they are done. An interrupt ends them and keeps what finished."""
    gpus = _gpus(where.device)
    workers = min(where.workers or (PER_GPU * gpus if gpus else cores()), len(specs))
    todo: queue.SimpleQueue[tuple[RunSpec, int]] = queue.SimpleQueue()
    for spec in specs:
        todo.put((spec, _RETRIES))
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    command = [sys.executable, "-m", "moeplan.verification.worker", "--serve", "--folder", str(folder)]
    command += ["--device", where.device, *(["--peaks", _peaks(where.device)] if gpus else [])]
    pool = [_Worker(command, todo, events, folder, place % gpus if gpus else None) for place in range(workers)]
    try:
        for worker in pool:
            worker.start()
        running = workers
        while running:
            # the timeout lets an interrupt through on systems whose locks do not
            try:
                event = events.get(timeout=1.0)
            except queue.Empty:
                continue
            if event is None:
                running -= 1
            else:
                listen(event)
    finally:
        for worker in pool:
            worker.end()


def _gpus(device: str) -> int:
    if device == "cpu":
        return 0
    torch = optional("torch", "verify")
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


class _Worker(threading.Thread):
    """Feeds one process with specs and passes on what it reports."""

    def __init__(
        self,
        command: list[str],
        todo: queue.SimpleQueue[tuple[RunSpec, int]],
        events: queue.SimpleQueue[Event | None],
        folder: Path,
        gpu: int | None,
    ) -> None:
        super().__init__(daemon=True)
        self.command, self.todo, self.events, self.folder, self.gpu = command, todo, events, folder, gpu
        self.errors: IO[str] | None = None
        self.process: subprocess.Popen[str] | None = None
        self.ended = False

    def run(self) -> None:
        """Until nothing is left to do."""
        try:
            while not self.ended:
                try:
                    spec, retries = self.todo.get_nowait()
                except queue.Empty:
                    return
                self._one(spec, retries)
        finally:
            self._close()
            self.events.put(None)

    def _one(self, spec: RunSpec, retries: int) -> None:
        process = self.process
        if process is None or process.poll() is not None:
            self._close()  # of one that ended between two runs
            process = self.process = self._open()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(spec_text(spec) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                event = Event(**json.loads(line))
                self.events.put(event)
                if event.kind == "failed":  # a device that met an error fails in every later run of its process
                    self._keep(spec, self._close()[1])
                if event.kind in ("finished", "failed"):
                    return
        except (OSError, ValueError):
            pass  # it died: told apart below
        code, said = self._close()
        if self.ended:
            return
        if retries:
            self.todo.put((spec, retries - 1))
        else:
            last = f": {reason_in(said)}" if said.strip() else ""
            self._keep(spec, said)
            self.events.put(Event(spec.digest, "failed", message=f"its process ended with code {code}, twice{last}"))

    def _keep(self, spec: RunSpec, said: str) -> None:
        """Keep what a failed run's process wrote to stderr."""
        if said.strip():
            kept = self.folder / "errors" / f"{spec.digest}.txt"
            with suppress(OSError):  # the failure itself is told
                kept.parent.mkdir(exist_ok=True)
                kept.write_text(said, encoding="utf-8")

    def _open(self) -> subprocess.Popen[str]:
        environment = {**os.environ, **worker_environment(), **leashed()}
        if self.gpu is not None:
            visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            environment["CUDA_VISIBLE_DEVICES"] = visible[self.gpu] if visible else str(self.gpu)
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed with it
        return subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # an interrupt of the terminal is this process's to handle
        )

    def _close(self) -> tuple[int, str]:
        """End the process by ending its input; returns its exit code and what it wrote to stderr."""
        process, self.process = self.process, None
        if process is None:
            return 0, ""
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not read when it died
                    pipe.close()
        code = process.wait()
        assert self.errors is not None
        with self.errors as errors:
            errors.seek(0)
            return code, errors.read()

    def end(self) -> None:
        """Stop whatever still runs."""
        self.ended = True
        process = self.process
        if process is not None and process.poll() is None:
            process.terminate()
        self.join(timeout=10)
