"""A worker does not outlive whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended and nobody waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


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
