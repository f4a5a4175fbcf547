"""`moeplan verify` killed at random moments, seeded: `python -m tests.kills [KILLS [SEED]]`, 50 by default.

A small study is started again and again and killed at a moment drawn over its whole course: its main process alone,
its whole family, or by an interrupt. No run that was finished may be lost, trained anew or torn, no worker may outlive
its main process by more than `OUTLIVES`, and the study that at last comes to its end must say what one that nobody
disturbed says, number by number. Prints the counts, and what went wrong.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moeplan.verification.results import whole
from tests.processes import PATIENCE, alive, started
from tests.verify_cases import SMALL, plan_for, text_file

OUTLIVES = 2.0
"""Longest life of a worker whose main process is gone [s]."""
HOW = ("main", "family", "interrupt")
"""Ways to end a study."""
TIMED = {"seconds", "tokens_per_second", "mfu", "wall_clock", "seeds_seconds", "train_flops_seconds", "says", "command"}
"""Fields that say how fast it went, or hang on that."""


@dataclass
class Study:
    """A study in a folder of its own."""

    home: Path
    """Where plan and text are."""
    folder: Path
    """Where its runs are kept."""
    finished: dict[Path, int] = field(default_factory=dict)
    """Runs seen finished, with the time of their files."""

    @property
    def command(self) -> list[str]:
        """About thirty runs of a tenth of a second to a second."""
        return [
            sys.executable, "-m", "moeplan", "verify", str(self.home / "plan.json"), "--budget", "1.5e11", "--json",
            "--device", "cpu", "--precision", "fp32", "--data", str(self.home / "text.jsonl"), "--folder",
            str(self.folder),
        ]  # fmt: skip

    def result(self) -> Any:
        """What it says when it is left to its end, without what hangs on the clock."""
        done = subprocess.run(self.command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return untimed(json.loads(done.stdout))

    def killed(self, how: str, after: float) -> list[str]:
        """Start it and end it so many seconds later, if it has not ended by itself; returns what went wrong."""
        silent = subprocess.DEVNULL
        with started(self.command, stdout=silent, stderr=silent, start_new_session=True) as process:
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                workers = children(process.pid)
                process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGKILL)
                if how == "family":
                    for worker in workers:
                        os.kill(worker, signal.SIGKILL)
                process.wait(PATIENCE)
                wrong = [f"{how}: a worker lived on"] if outlived(workers) else []
                wrong += [f"{how}: exit code {process.returncode}"] if process.returncode not in (-9, 130) else []
                return wrong + self.lost()
        return self.lost()

    def lost(self) -> list[str]:
        """Finished runs that are gone or were made anew, and files that are torn."""
        now = {path: path.stat().st_mtime_ns for path in self.folder.glob("*.json")}
        wrong = [f"{path.name}: lost" for path, then in self.finished.items() if now.get(path) != then]
        if whole(self.folder) != len(now):
            wrong.append(f"{len(now) - whole(self.folder)} torn files")
        self.finished = now
        return wrong


def untimed(found: Any) -> Any:
    """JSON without the fields in `TIMED`."""
    if isinstance(found, dict):
        return {name: untimed(value) for name, value in found.items() if name not in TIMED}
    return [untimed(each) for each in found] if isinstance(found, list) else found


def children(pid: int) -> list[int]:
    """Processes that a process started, those they started included."""
    try:
        own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        for task in Path(f"/proc/{pid}/task").iterdir():
            own += [int(word) for word in (task / "children").read_text().split() if int(word) not in own]
    except OSError:
        return []
    return own + [each for child in own for each in children(child)]


def outlived(workers: list[int]) -> bool:
    """Whether any of these processes lives on for longer than `OUTLIVES`, in time that a busy machine gave it."""
    end = time.monotonic() + OUTLIVES
    while any(alive(worker) for worker in workers):
        if time.monotonic() > end:
            return True
        time.sleep(0.05)
    return False


def faults(kills: int, home: Path, seed: int = 0) -> tuple[list[str], int]:
    """What went wrong over so many kills, and how many studies came to their end amid them."""
    rng = random.Random(seed)
    (home / "plan.json").write_text(plan_for(SMALL).to_text(), encoding="utf-8")
    text_file(home, 0.4)
    begin = time.monotonic()
    expected = Study(home, home / "undisturbed").result()
    course = time.monotonic() - begin
    wrong: list[str] = []
    ended = 0
    study = Study(home, home / "study-0")
    for number in range(kills):
        found = study.killed(rng.choice(HOW), rng.uniform(0.0, course))
        wrong += found
        said = "; ".join(found) or "no faults"
        print(f"kill {number + 1}: {len(study.finished)} runs finished, {said}", file=sys.stderr, flush=True)
        last = number == kills - 1
        if last or len(study.finished) >= len(expected["runs"]):
            if study.result() != expected:
                wrong.append(f"{study.folder.name}: other numbers")
            wrong += study.lost()
            ended += 1
            study = Study(home, home / f"study-{number + 1}")
    return wrong, ended


if __name__ == "__main__":
    # a shell has what it starts in the background ignore interrupts, and so would the studies
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as own:
        wanted = [int(word) for word in sys.argv[1:]] or [50]
        begin = time.monotonic()
        wrong, ended = faults(wanted[0], Path(own), *wanted[1:])
        print("\n".join(wrong))
        minutes = (time.monotonic() - begin) / 60
        print(f"killed {wanted[0]} times over {ended} studies in {minutes:.1f} minutes: {len(wrong)} faults")
        sys.exit(bool(wrong))
