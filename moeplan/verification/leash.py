"""A process that does not outlive the one that started it: `tie`, imported before anything slow is.

On Linux the kernel ends the process (prctl's PR_SET_PDEATHSIG) at the very moment when the thread that started it is
gone, however busy the machine and whatever the process is in; elsewhere, and for what happened before, it looks itself.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

PARENT = "MOEPLAN_PARENT"
"""Variable of the environment with the process that a tied one belongs to."""
_PR_SET_PDEATHSIG = 1
"""`man 2 prctl`, <linux/prctl.h>."""
_LOOKS = 1.0
"""Time between two looks where the kernel does not tell [s]."""


def leashed() -> dict[str, str]:
    """The environment that ties a process to this one."""
    return {PARENT: str(os.getpid())}


def tie() -> None:
    """End this process when the one that started it is gone, or now if it is gone already.

    The one that started it is named by `leashed`, because it may be gone before this is called; else it is the parent.
    """
    named = os.environ.get(PARENT, "") if os.name == "posix" else ""  # on Windows a launcher may stand between
    parent = int(named) if named.isdecimal() else os.getppid()
    if sys.platform == "linux":
        _end_by_kernel()
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_look, args=(parent,), daemon=True).start()


def _end_by_kernel() -> None:
    import ctypes

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _look(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOKS)
    os._exit(1)
