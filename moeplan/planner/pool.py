"""The queue of searches: a few workers, each with its designs warm, and a short line of jobs before them.

Jobs are taken in order, each by the free worker that answered the same grid last, if one is free. A job that nobody
waits for leaves the line; if it runs and is a long one, its worker is asked to leave it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import multiprocessing
import os
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from moeplan.planner import worker as process
from moeplan.planner.worker import OUT_OF_MEMORY, Failure

WAITING = 16
"""Most jobs that wait; more are turned away."""
WORKER_BYTES = 900_000_000
"""Most data of one worker [bytes]: two of them and the server stay below 2 GB."""
_ENDED = Failure("the search ended unexpectedly; ask again", False)


class BusyError(Exception):
    """Too many jobs wait already."""


@dataclass(eq=False)
class _Job:
    number: int
    kind: str
    contents: Any
    grid: str
    """What its designs depend on, in words: jobs of the same words find them warm where one was answered."""
    long: bool
    """Whether it takes so long that it is left where nobody waits, at the price of what its worker has warm."""
    result: asyncio.Future[Any]
    again: bool = False
    """Whether it is tried again, by a new worker."""


@dataclass(eq=False)
class _Worker:
    process: Any
    pipe: Any
    grid: str = ""
    job: _Job | None = field(default=None)


class Pool:
    """Workers and the line before them; `async with` starts and ends them."""

    def __init__(self, workers: int, most_bytes: int = WORKER_BYTES) -> None:
        self._size, self._bytes = workers, most_bytes
        self._waiting: deque[_Job] = deque()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Pool:
        for _ in range(self._size):
            self._idle.append(self._start())
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self._all:
            one.pipe.close()
            one.process.terminate()
        for task in self._tasks:
            task.cancel()
        for one in self._all:
            await asyncio.to_thread(one.process.join, 5)

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        own, other = context.Pipe()
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # starting threads takes longer than a search gains
        started = context.Process(target=process.serve, args=(other, self._bytes), daemon=True)
        started.start()
        other.close()
        made = _Worker(started, own)
        self._all.add(made)
        return made

    @property
    def process_ids(self) -> list[int]:
        """Of the workers."""
        return [one.process.pid for one in self._all]

    async def ask(self, kind: str, contents: Any, grid: str = "", *, long: bool = False) -> Any:
        """The result of a job, or a `Failure`; raises `BusyError` where the line is full.

        Cancelling the caller cancels the job.
        """
        if len(self._waiting) >= WAITING:
            raise BusyError
        job = _Job(next(self._numbers), kind, contents, grid, long, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._pump()
        try:
            return await job.result
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)
            for one in self._all:
                if one.job is job and job.long:
                    process.cancel(one.process.pid)
            raise

    def _pump(self) -> None:
        """Give waiting jobs to free workers."""
        while self._waiting and self._idle:
            job = self._waiting.popleft()
            one = next((w for w in self._idle if w.grid == job.grid), self._idle[0])
            self._idle.remove(one)
            one.job, one.grid = job, job.grid or one.grid
            task = asyncio.get_running_loop().create_task(self._run(one, job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, one: _Worker, job: _Job) -> None:
        def exchange() -> Any:
            one.pipe.send((job.number, job.kind, job.contents, job.again))
            return one.pipe.recv()

        try:
            _, answer = await asyncio.to_thread(exchange)
        except (EOFError, OSError):  # it is gone
            answer = _ENDED
        one.job = None
        if answer in (_ENDED, OUT_OF_MEMORY):
            self._all.discard(one)
            one.pipe.close()
            one.process.terminate()
            await asyncio.to_thread(one.process.join, 5)
            one = self._start()
        self._idle.append(one)
        if answer == OUT_OF_MEMORY and not job.again and not job.result.done():
            job.again = True  # once more, by a worker that holds nothing else and looks no further than it was asked
            self._waiting.appendleft(job)
        elif not job.result.done():
            job.result.set_result(answer)
        self._pump()
