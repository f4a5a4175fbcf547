"""`moeplan verify` from Python: `verify("plan.json", time="5m")`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from moeplan.errors import UsageError
from moeplan.fitting.suggestion import Suggestion
from moeplan.plan.document import Plan
from moeplan.units import parse_flops
from moeplan.verification import study
from moeplan.verification.launch import Listener
from moeplan.verification.leverage_study import LeverageStudy
from moeplan.verification.options import StudyOptions, Where, parse_duration
from moeplan.verification.subject import read_subject
from moeplan.verification.suggested_study import SuggestedStudy
from moeplan.verification.verification import Outline


def verify(
    plan: Plan | Suggestion | str | Path,
    *,
    time: str | float | None = None,
    budget: str | float | None = None,
    seeds: int | None = None,
    data: str | Path | None = None,
    precision: str = "auto",
    controls: bool = False,
    dry_run: bool = False,
    folder: str | Path | None = None,
    engine: str = "local",
    workers: int = 0,
    device: str = "auto",
    address: str = "",
    slurm: Mapping[str, str] | None = None,
    report_to: str = "",
    command: str = "",
    listen: Listener | None = None,
    announce: Callable[[Outline], None] | None = None,
) -> Any:
    """Measure a plan's leverage by short proxy runs, or train suggested runs; with `dry_run` say which, and train none.

    Parameters
    ----------
    plan : Plan, Suggestion, or str or Path
        A plan, runs that `fit` suggested, or the file of either.
    time, budget : str or float, optional
        Time of all runs ("5m"), or their compute together [FLOPs]; not both, and neither for suggested runs.
    seeds : int, optional
        Seeds of every size at every budget.
    data : str or Path, optional
        Text or tokens to train on; by default Python source code that this machine has.
    precision, controls
        As `moeplan.verification.options.StudyOptions` takes them.
    folder : str or Path, optional
        Where runs are kept, to resume from; by default beside the plan's file, with the suffix .verify.
    engine, workers, device, address, slurm, report_to
        As `moeplan.verification.options.Where` takes them.
    command, listen, announce
        As `moeplan.verification.study.run` takes them.

    Returns
    -------
    Verification, ProxyRuns or Outline
        What was measured of a plan, the losses of suggested runs, or with `dry_run` the runs to come.

    Raises
    ------
    InfeasibleError
        Where no runs fit the time, the budget or the text.
    UsageError
        For what is no plan, and for options that do not go together.
    """
    subject = read_subject(plan) if isinstance(plan, (str, Path)) else plan
    if folder is None:
        if subject is plan:
            raise UsageError("a plan that is no file needs a folder for its runs, for example folder='plan.verify'")
        folder = Path(plan).with_suffix(".verify")  # type: ignore[arg-type]  # it was read from there
    given = {} if data is None else {"data": str(data)}
    request = StudyOptions(
        time=None if time is None else parse_duration(time),
        budget=None if budget is None else parse_flops(budget, "budget"),
        seeds=seeds,
        controls=controls,
        precision=precision,
        **given,
    )
    where = Where(engine, workers, device, address, dict(slurm or {}), report_to)
    asked = study_of(subject, request)
    if dry_run:
        return study.outline(asked, folder, where)
    return study.run(asked, folder, where, listen=listen, announce=announce, command=command)


def study_of(subject: Plan | Suggestion, request: StudyOptions) -> Any:
    """The study of a plan's leverage, or that of suggested runs."""
    return LeverageStudy(subject, request) if isinstance(subject, Plan) else SuggestedStudy(subject, request)
