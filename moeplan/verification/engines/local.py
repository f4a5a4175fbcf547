"""Runs in processes of this machine: one single-thread process a core, or `PER_GPU` processes a GPU."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from moeplan.verification.launch import PER_GPU, Event, Listener, cores, optional, worker_environment
from moeplan.verification.request import Where
from moeplan.verification.spec import RunSpec
from moeplan.verification.worker import spec_text

_RETRIES = 1
"""How often a run whose process died is tried again."""


def launch(specs: Sequence[RunSpec], folder: Path, where: Where, listen: Listener) -> None:
    """Run every spec; workers take the next one when they are done. An interrupt ends them and keeps what finished."""
    gpus = _gpus(where.device)
    workers = min(where.workers or (PER_GPU * gpus if gpus else cores()), len(specs))
    todo: queue.SimpleQueue[tuple[RunSpec, int]] = queue.SimpleQueue()
    for spec in specs:
        todo.put((spec, _RETRIES))
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    pool = [_Worker(todo, events, folder, where.device, place % gpus if gpus else None) for place in range(workers)]
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
        todo: queue.SimpleQueue[tuple[RunSpec, int]],
        events: queue.SimpleQueue[Event | None],
        folder: Path,
        device: str,
        gpu: int | None,
    ) -> None:
        super().__init__(daemon=True)
        self.todo, self.events, self.gpu = todo, events, gpu
        self.command = [sys.executable, "-m", "moeplan.verification.worker", "--serve", "--folder", str(folder)]
        self.command += ["--device", device]
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
        process = self.process = self.process if self.process and self.process.poll() is None else self._open()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(spec_text(spec) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                event = Event(**json.loads(line))
                self.events.put(event)
                if event.kind in ("finished", "failed"):
                    return
        except (OSError, ValueError):
            pass  # it died: told apart below
        code = self._close()
        if self.ended:
            return
        if retries:
            self.todo.put((spec, retries - 1))
        else:
            self.events.put(Event(spec.digest, "failed", message=f"its process ended with code {code}, twice"))

    def _open(self) -> subprocess.Popen[str]:
        environment = {**os.environ, **worker_environment()}
        if self.gpu is not None:
            visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
            environment["CUDA_VISIBLE_DEVICES"] = visible[self.gpu] if visible else str(self.gpu)
        return subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # an interrupt of the terminal is this process's to handle
        )

    def _close(self) -> int:
        """End the process by ending its input; returns its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not read when it died
                    pipe.close()
        return process.wait()

    def end(self) -> None:
        """Stop whatever still runs."""
        self.ended = True
        process = self.process
        if process is not None and process.poll() is None:
            process.terminate()
        self.join(timeout=10)
