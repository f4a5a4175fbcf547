"""Runs nowhere: writes every spec and leaves the rest to whoever runs the commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moeplan.texts import counted
from moeplan.verification.engines import local
from moeplan.verification.launch import Listener, write_specs
from moeplan.verification.options import Where
from moeplan.verification.spec import RunSpec


class Commands(Exception):  # not an error: the study stops here until the runs are done
    """Commands that must be run before the study can go on."""

    def __init__(self, commands: list[str]) -> None:
        super().__init__(f"left to others: {counted(len(commands), 'run(s)')}")
        self.commands = commands


def probe(where: Where, folder: Path) -> str:
    """Forecasts are for this machine: which ones will run the commands is not known."""
    return local.probe(where, folder)


def launch(specs: Sequence[RunSpec], folder: Path, where: Where, listen: Listener) -> None:
    """Raise `Commands` with one for each spec."""
    raise Commands(write_specs(specs, folder))
