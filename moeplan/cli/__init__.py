"""The command line, put together: every command is a module of `moeplan.cli`.

Nothing but click is imported until a command runs.
"""

from __future__ import annotations

import gc
import os
import sys

import click

from moeplan import __version__
from moeplan.cli.backtest import backtest
from moeplan.cli.compare import compare
from moeplan.cli.fit import fit
from moeplan.cli.frontier import frontier
from moeplan.cli.hardware import hardware
from moeplan.cli.help import show_help
from moeplan.cli.laws import laws
from moeplan.cli.models import export, inspect
from moeplan.cli.planner import planner
from moeplan.cli.program import Program
from moeplan.cli.recommend import recommend
from moeplan.cli.schema import schema
from moeplan.cli.upcycle import upcycle
from moeplan.cli.verify import verify


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="moeplan", message="%(prog)s %(version)s")
def cli() -> None:
    """From a compute budget and a memory limit to an exact Mixture-of-Experts language model.

    Try: moeplan recommend --flops 1e22 --memory 80GB
    """


for command in (
    recommend,
    compare,
    frontier,
    inspect,
    upcycle,
    export,
    fit,
    laws,
    hardware,
    backtest,
    verify,
    planner,
    schema,
    show_help,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] not in (["fit"], ["verify"]):  # these multiply matrices, and run for long
        # Starting OpenBLAS's threads takes as long as loading numpy. Loading modules makes many objects, all of which
        # stay: looking among them for garbage, at exit too, takes a tenth of a plan's time.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        gc.set_threshold(100_000)
    try:
        cli(prog_name="moeplan")
    finally:
        gc.freeze()
