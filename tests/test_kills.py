"""A small sample of the kills; `python -m tests.kills` makes it larger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills import faults


@pytest.mark.verify
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc for a process's children")
def test_a_study_killed_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """Killed three times at random moments: no finished run is lost, no worker lives on, and the numbers are the same
    as those of a study that nobody disturbed."""
    assert faults(3, tmp_path, seed=1)[0] == []
