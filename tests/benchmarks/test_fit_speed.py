"""Speed of fitting against its limits: `python -m pytest tests/benchmarks`, on an idle machine.

The runs are the extracted Chinchilla points where MOEPLAN_RUNS names their folder, else as many made ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from moeplan.fitting import fit
from tests.fitting_truths import design, predictions, truths, write_runs

Record = Callable[[str, object], None]

MAX_POINT_SECONDS, MAX_DRAWN_SECONDS = 1.0, 3.0
"""Wall time of the fit of 240 runs on two cores, without draws and with 1,000."""
PEERS = "the best peer takes 5.7 s with its draws, the best-known one 186 s"


def points(folder: Path) -> tuple[str, int]:
    """A file of 245 runs, and how many of the highest losses to leave out."""
    path = Path(os.environ.get("MOEPLAN_RUNS") or "no-such-folder") / "hoffmann2022_extracted.csv"
    if path.is_file():
        return str(path), 5
    columns = design("additive_power_law", 245)
    observed = predictions("additive_power_law", columns, truths()["additive_power_law"])
    return write_runs(folder / "runs.csv", {**columns, "loss": observed}), 5


@pytest.mark.parametrize("draws, limit", [(0, MAX_POINT_SECONDS), (1000, MAX_DRAWN_SECONDS)])
def test_the_fit_of_240_runs_is_fast(
    benchmark: BenchmarkFixture, record_property: Record, tmp_path: Path, draws: int, limit: float
) -> None:
    """Reading, hold-out, fit, profile check and optima in 1 s; with 1,000 bootstrap draws in 3 s; medians of 5."""
    path, dropped = points(tmp_path)
    arguments = {"drop_highest_loss": dropped, "draws": draws}
    benchmark.pedantic(fit, (path, "additive_power_law"), arguments, rounds=5, warmup_rounds=1)
    seconds = benchmark.stats.stats.median
    record_property(f"fit of 240 runs, {draws} draws", f"{seconds:.2f} s (at most {limit:g}; {PEERS})")
    assert seconds <= limit
