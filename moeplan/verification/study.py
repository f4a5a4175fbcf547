"""The course of a study: what is run is chosen and kept, the runs are made, and what they say is concluded.

    study.settings  ->  prepare (text, kept choice or probe and choice)  ->  launch  ->  study.conclude

Two studies take it: that of a plan's leverage (`leverage_study`) and that of suggested runs (`suggested_study`). The
folder of a study keeps every finished run, so that a second call, or one with more seeds, trains only what is missing.
It keeps the ladder chosen for a request as well: a forecast varies from call to call, the runs must not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from moeplan import records
from moeplan.verification.kept_choice import KeptChoice, key_of
from moeplan.verification.ladder import Data, Ladder, Settings
from moeplan.verification.launch import Listener, launch_ladder, optional
from moeplan.verification.machine import Machine, probe_machine
from moeplan.verification.options import StudyOptions, Where
from moeplan.verification.spec import RunResult
from moeplan.verification.text import describe
from moeplan.verification.tracking import EXTRA, Tracking
from moeplan.verification.verification import Outline

Found = TypeVar("Found", covariant=True)
"""The answer of a study."""


@dataclass(frozen=True)
class Prepared:
    """Everything that is settled before the first run."""

    outline: Outline
    """The runs with compute, tokens, memory and time."""
    ladder: Ladder
    """The same runs, ready to be made."""
    data: Data
    """The text they train on."""


class Study(ABC, Generic[Found]):
    """The part that differs between kinds of study; `outline` and `run` do the rest."""

    request: StudyOptions
    """The options asked for."""

    @property
    @abstractmethod
    def subject(self) -> records.Record:
        """The plan, or the suggestion, that it is about."""

    @property
    @abstractmethod
    def seeds(self) -> int:
        """Seeds of every rung."""

    def check_request(self) -> None:
        """Refuse what no text and no machine could meet, before either is looked at."""

    @abstractmethod
    def key(self, data: Data, where: Where) -> Any:
        """The key that its choice is kept under, as JSON's types: whoever asks the same gets the same runs."""

    @abstractmethod
    def ladder_again(self, kept: KeptChoice, settings: Settings, data: Data) -> Ladder:
        """The ladder of a kept choice."""

    @abstractmethod
    def is_choice_for(self, kept: KeptChoice, where: Where) -> bool:
        """Whether a kept choice is for this very request; what is not is still taken as a start by `choose`."""

    @abstractmethod
    def choose(self, data: Data, machine: Machine, kept: KeptChoice | None) -> tuple[Ladder, Outline]:
        """Choose the runs for a machine. Raises `InfeasibleError` where none fit."""

    def check(self, data: Data) -> None:
        """Refuse what no machine could do, before one is probed."""

    def check_prepared(self, prepared: Prepared) -> None:
        """Refuse what an outline may show but nobody should train."""

    @abstractmethod
    def conclude(
        self, prepared: Prepared, tuned: list[RunResult], results: list[RunResult], *, command: str = ""
    ) -> Found:
        """Conclude from finished runs. Raises `InfeasibleError` where too many of them diverged."""

    def settings(self, precision: str) -> Settings:
        """Settings common to all its runs, in this arithmetic."""
        return Settings(cast(Literal["fp32", "bf16"], precision), self.seeds, self.request.controls)


def outline(study: Study[Found], folder: str | Path, where: Where | None = None) -> Outline:
    """The runs that `run` would make, with compute, tokens, memory and time on this machine; nothing trains.

    Raises `InfeasibleError` where nothing fits the time, the budget or the data.
    """
    return prepare(study, Path(folder), where or Where()).outline


def run(
    study: Study[Found],
    folder: str | Path,
    where: Where | None = None,
    *,
    listen: Listener | None = None,
    announce: Callable[[Outline], None] | None = None,
    command: str = "",
) -> Found:
    """Make the runs of a study, kept in `folder`, and conclude from them.

    `listen` hears what happens to runs, `announce` gets the outline before anything trains. Raises `InfeasibleError`
    where nothing fits, for too little text, or if runs fail or diverge; `moeplan.verification.engines.plan.Commands`
    with the engine plan.
    """
    folder, where = Path(folder), where or Where()
    if where.report_to:
        optional(where.report_to, EXTRA)  # what is missing is told before the machine is probed
    prepared = prepare(study, folder, where)
    study.check_prepared(prepared)
    tracking = Tracking(where.report_to, folder, study.subject.to_json()) if where.report_to else None
    if tracking is not None:
        listen = tracking.heard(listen)
    if announce is not None:
        announce(prepared.outline)
    tuned, results = launch_ladder(prepared.ladder, prepared.data, folder, where, listen)
    if tracking is not None:
        for result in (*tuned, *results):  # those that were there before
            tracking.write(result)
    return study.conclude(prepared, tuned, results, command=command)


def prepare(study: Study[Found], folder: Path, where: Where) -> Prepared:
    """The runs of a study: those kept for this request, or, after a probe of the machine, those it chooses."""
    study.check_request()
    data = describe(str(study.request.data), folder)
    study.check(data)
    key = key_of(study.key(data, where))
    kept = KeptChoice.read(folder, key)
    if kept is not None and study.is_choice_for(kept, where):
        settings = study.settings(kept.outline.precision)
        return Prepared(kept.outline, study.ladder_again(kept, settings, data), data)
    ladder, planned = study.choose(data, probe_machine(where, folder), kept)
    KeptChoice(ladder.base, where.workers, planned).write(folder, key)
    return Prepared(planned, ladder, data)
