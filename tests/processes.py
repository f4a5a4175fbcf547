"""Processes that tests start: ended with the test, whatever happens, and waited for by events rather than clocks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

PATIENCE = 900.0
"""Seconds after which a process counts as stuck: never the measure of a test, however busy the machine."""


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


TOLD = """
import os, runpy
from moeplan.report import output
plain = output.Progress.__call__
def told(self, text):
    os.write({descriptor}, text.encode() + b"\\n")
    plain(self, text)
output.Progress.__call__ = told
runpy.run_module("moeplan", run_name="__main__", alter_sys=True)
"""


@contextlib.contextmanager
def working(arguments: Sequence[str], step: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """`moeplan` with these arguments, once its progress has told a step that holds these bytes.

    Its steps come over a pipe of their own, so that stdout and stderr are what a user has; a program that ends before
    that step is yielded as it is.
    """
    read, write = os.pipe()
    command = [sys.executable, "-c", TOLD.format(descriptor=write), *arguments]
    try:
        with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(write,)) as process:
            os.close(write)
            said = b""
            while step not in said and (chunk := os.read(read, 65536)):
                said += chunk
            yield process
    finally:
        os.close(read)
