"""A small sample of the fuzz; `python -m tests.fuzz` makes it larger."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import faults


def test_random_command_lines_and_damaged_files_end_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 command lines and 20 files: no traceback, no hang, no other exit code, no number that is none."""
    monkeypatch.chdir(tmp_path)
    assert faults(20, 20, tmp_path) == []
