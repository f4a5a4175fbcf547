"""A worker does not outlive whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moeplan.verification.leash import PARENT as NAMED
from tests.processes import PATIENCE, alive, started

pytestmark = pytest.mark.verify  # the worker needs torch

PARENT = """
import subprocess, sys, time
command = [sys.executable, "-m", "moeplan.verification.worker", "--serve", "--folder", sys.argv[1]]
null = subprocess.DEVNULL
worker = subprocess.Popen(command, stdin=0, stdout=null, stderr=null, start_new_session=True)
time.sleep(3)
print(worker.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc whether a process lives")
def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """After kill -9 of the main process a worker ends within seconds, even while its input stays open."""
    reader, writer = os.pipe()
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdin=reader, stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 15
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.1)
    try:
        assert not alive(worker)
    finally:
        os.close(writer)
        os.close(reader)


def gone() -> int:
    """The number of a process that has ended."""
    with started([sys.executable, "-c", ""]) as process:
        process.wait(PATIENCE)
    return process.pid


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a launcher may stand between the two")
@pytest.mark.parametrize("module, arguments", [("worker", ("--serve", "--folder")), ("probe", ())])
def test_what_starts_after_its_parent_is_gone_ends_at_once(
    module: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """A worker with a run in its pipe, or a probe, whose main process was killed while it started does nothing."""
    command = [
        sys.executable,
        "-m",
        f"moeplan.verification.{module}",
        *arguments,
        str(tmp_path) if arguments else "cpu",
    ]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), NAMED: str(gone())}
    with started(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        said, _ = process.communicate(b"{}\n", timeout=PATIENCE)
    assert (process.returncode, said) == (1, b"")


TIED = """
import time
from moeplan.verification import leash
leash._LOOKS = 1e6
leash.tie()
print("tied", flush=True)
time.sleep(1e6)
"""
HOLDER = """
import os, subprocess, sys, time
from moeplan.verification.leash import leashed
tied = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env={**os.environ, **leashed()}, stdout=subprocess.PIPE)
tied.stdout.readline()
print(tied.pid, flush=True)
time.sleep(1e6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_the_kernel_ends_what_is_tied() -> None:
    """A tied process that never looks ends all the same when the one that started it is killed."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with started([sys.executable, "-c", HOLDER, TIED], env=environment, stdout=subprocess.PIPE) as holder:
        tied = int(holder.stdout.readline())
        assert alive(tied)
    end = time.monotonic() + PATIENCE
    while alive(tied) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(tied)
