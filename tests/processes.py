"""Processes that tests start: ended with the test, whatever happens, and waited for by events rather than clocks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 900.0
"""Seconds after which a process counts as stuck: never the measure of a test, however busy the machine."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background job, whose children would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended and nobody waited for does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A running process; at the end of the block it is killed if it still runs, and its pipes are closed."""
    process = subprocess.Popen(command, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


HELD = """
import os, runpy, signal
from moeplan.report import output
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
plain = output.Progress.__call__
def told(self, text):
    plain(self, text)
    if {step!r} in text:
        os.write({said}, b".")
        os.read({hold}, 1)
output.Progress.__call__ = told
runpy.run_module("moeplan", run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def held(arguments: Sequence[str], step: str) -> Iterator[subprocess.Popen[bytes]]:
    """`moeplan` with these arguments, amid its work: it waits at the progress that says `step`, until a signal.

    That it waits makes no race of a test: however busy the machine, the work is not done before the signal. A program
    that ends before that step is yielded as it is.
    """
    said, saying = os.pipe()
    hold, holding = os.pipe()
    command = [sys.executable, "-c", HELD.format(step=step, said=saying, hold=hold), *arguments]
    try:
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(saying, hold)) as process:
            os.close(saying)
            os.read(said, 1)
            yield process
    finally:
        for descriptor in (said, hold, holding):
            os.close(descriptor)
