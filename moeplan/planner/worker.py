"""A process that searches: it keeps its designs warm, answers one job at a time, and stays within its memory.

A job is (number, kind, contents, whether it is asked again for want of memory); its answer is (number, what), where
`what` is the result by name or a `Failure`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from moeplan.errors import MoeplanError
from moeplan.planner.fields import Question

TOO_LARGE = "this question needs more memory than the planner gives to one search; ask it on the command line"
ROOMY = 400_000_000
"""Freed memory is given back to the system once a worker holds more than this [bytes]: reusing it is faster."""


@dataclass(frozen=True)
class Failure:
    """Why there is no answer."""

    sentence: str
    """For people."""
    mistake: bool
    """Whether the question is at fault."""


OUT_OF_MEMORY = Failure(TOO_LARGE, True)
"""A worker that says so is to be replaced: what it freed lies in pieces."""


class Cancelled(BaseException):
    """Nobody waits for the answer any more."""


def serve(jobs: Connection, most_bytes: int) -> None:
    """Answer jobs until the connection ends, in at most so many bytes of data."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends its workers itself
    _limit(most_bytes)
    work = _Work()
    gc.disable()  # between jobs is soon enough
    gc.freeze()  # what is loaded stays
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, work.cancel)
    while True:
        try:
            number, kind, contents, again = jobs.recv()
        except (EOFError, OSError):
            return
        work.spaces.sparing = again
        answer = work.answer(kind, contents)
        try:
            jobs.send((number, answer))
        except OSError:
            return
        _give_back()


def _limit(most_bytes: int) -> None:
    """Let what would need more memory fail, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))


def _give_back() -> None:
    """Free what only refers to itself, and let the C library return what is freed where a worker has grown.

    A space and what is known of its designs' training refer to each other. Only glibc can return memory.
    """
    gc.collect()
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        if pages * os.sysconf("SC_PAGE_SIZE") > ROOMY:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return


class _Work:
    """What a worker knows from job to job."""

    def __init__(self) -> None:
        # Heavy modules, loaded before the first question rather than with it.
        from moeplan.plan import assembly  # noqa: F401
        from moeplan.planner import answer  # noqa: F401
        from moeplan.planner.warm import Spaces

        self.spaces, self._running = Spaces(), False

    def cancel(self, *_: object) -> None:
        """Leave the job that runs, if one does."""
        if self._running:
            self._running = False
            raise Cancelled

    def answer(self, kind: str, contents: Any) -> Any:
        """The result of a job, or why there is none."""
        try:
            try:
                self._running = True
                return getattr(self, kind)(contents)
            finally:
                self._running = False
        except Cancelled:
            self.spaces.clear()  # what it was in the middle of is in no known state
            return Failure("cancelled", False)
        except MoeplanError as error:
            return Failure(str(error), True)
        except MemoryError:
            return OUT_OF_MEMORY

    def plan(self, question: Question) -> dict[str, str]:
        """The plan as its file, what is drawn of it, and the designs beside it."""
        from moeplan.plan.assembly import assemble
        from moeplan.plan.document import Plan
        from moeplan.plan.law_selection import select_laws
        from moeplan.planner.answer import designs_answer, plan_answer

        laws = select_laws(question.laws or None)
        choice = self.spaces.choice(question.budget, laws)
        made = assemble(choice, laws, num_alternatives=5, choose=question.choose, command=question.command)
        plan = Plan.from_json(made.to_json())
        return {
            "plan": plan.to_text(),
            "answer": json.dumps(plan_answer(plan)),
            "designs": json.dumps(designs_answer(choice)),
        }

    def designs(self, question: Question) -> dict[str, str]:
        """The designs near the best."""
        from moeplan.plan.law_selection import select_laws
        from moeplan.planner.answer import designs_answer

        choice = self.spaces.choice(question.budget, select_laws(question.laws or None))
        return {"designs": json.dumps(designs_answer(choice))}

    def curve(self, question: Question) -> dict[str, str]:
        """The choices along memory."""
        from moeplan.plan.law_selection import select_laws
        from moeplan.planner.answer import curve_answer

        found = self.spaces.along_memory(question.budget, select_laws(question.laws or None))
        return {"curve": json.dumps(curve_answer(found, question.budget.flops))}

    def page(self, plan_text: str) -> dict[str, str]:
        """The page of a plan."""
        from moeplan.plan.document import Plan
        from moeplan.report.plan_page import plan_html

        return {"text": plan_html(Plan.from_json(json.loads(plan_text)))}

    def export(self, contents: tuple[str, str]) -> dict[str, str]:
        """A plan as a trainer's configuration."""
        from moeplan.plan.document import Plan
        from moeplan.plan.export import export

        plan_text, target = contents
        return {"text": export(Plan.from_json(json.loads(plan_text)), target)}


def cancel(process_id: int) -> None:
    """Ask a worker to leave the job that it runs; where the system has no such signal the job ends by itself."""
    if hasattr(signal, "SIGUSR1"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGUSR1)
