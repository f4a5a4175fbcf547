"""Progress of a study on stderr: a bar for every run that trains, and one for all; nothing unless it is a terminal."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from moeplan.texts import counted
from moeplan.units import format_bytes, format_count, format_duration, format_flops
from moeplan.verification.launch import Event
from moeplan.verification.results import whole
from moeplan.verification.verification import Outline


class Bars(AbstractContextManager["Bars"]):
    """Shows what `moeplan.verification.launch` reports; says where results are kept when it is interrupted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._all: Any = None
        self._finished = 0

    def __enter__(self) -> Bars:
        if getattr(sys.stderr, "isatty", lambda: False)() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[says]}"),
                console=Console(stderr=True, no_color=True),
                transient=True,
            )
            self._bars.start()
            self._all = self._bars.add_task("reading text, probing", total=None, says="")
        return self

    def announce(self, outline: Outline) -> None:
        """Say what will run."""
        total = sum(run.count for run in outline.runs)
        time = "" if outline.seconds is None else f", about {format_duration(outline.seconds)}"
        memory = format_bytes(max(run.memory_bytes for run in outline.runs), 2)
        there = whole(self.folder)
        kept = f"{there} results are there already" if there else "results are kept"
        cost = f"{format_flops(outline.train_flops)} FLOPs{time}, up to {memory} each"
        text = f"{counted(total, 'run(s)')}, {cost}; {kept} in {self.folder}"
        if self._bars is None:
            click.echo(text, err=True)
        else:
            self._bars.console.print(text, highlight=False)
            self._bars.update(self._all, description="runs", total=total, completed=0)

    def hear(self, event: Event) -> None:
        """Show an event."""
        if event.kind in ("finished", "failed"):
            self._finished += 1
        if self._bars is None:
            return
        if event.kind in ("started", "progress") and event.digest not in self._tasks:
            self._tasks[event.digest] = self._bars.add_task(
                event.name or event.digest[:8], total=event.steps or None, says=""
            )
        task = self._tasks.get(event.digest)
        if event.kind == "progress":
            mfu = "" if event.mfu is None else f", MFU {100 * event.mfu:.1f} %"
            says = (
                f"loss {event.loss:.3f}, {format_count(event.tokens_per_second)} tok/s{mfu}, "
                f"{format_duration(event.seconds_left)} left"
            )
            self._bars.update(task, completed=event.step, total=event.steps, says=says)
        elif event.kind in ("finished", "failed"):
            if task is not None:
                self._bars.remove_task(self._tasks.pop(event.digest))
            self._bars.update(self._all, completed=self._finished, says=f"{self._finished} done")

    def stop(self) -> None:
        """Take the bars away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt) and self._finished:
            kept = "1 run is" if self._finished == 1 else f"{self._finished} runs are"
            click.echo(f"{kept} kept in {self.folder}; the same command goes on from there.", err=True)
