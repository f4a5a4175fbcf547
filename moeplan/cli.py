"""The command line, put together: every command is a module of `moeplan.commands`.

Nothing but click is imported until a command runs.
"""

from __future__ import annotations

import click

from moeplan import __version__
from moeplan.commands.backtest import backtest
from moeplan.commands.compare import compare
from moeplan.commands.fit import fit
from moeplan.commands.frontier import frontier
from moeplan.commands.hardware import hardware
from moeplan.commands.laws import laws
from moeplan.commands.models import export, inspect
from moeplan.commands.program import Program
from moeplan.commands.recommend import recommend
from moeplan.commands.verify import verify


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="moeplan", message="%(prog)s %(version)s")
def cli() -> None:
    """From a compute budget and a memory limit to an exact Mixture-of-Experts language model.

    Try: moeplan recommend --flops 1e22 --memory 80GB
    """


@cli.command()
def schema() -> None:
    """Print the JSON Schema of a plan file."""
    from moeplan.plan import plan_schema
    from moeplan.report.output import emit_json

    emit_json(plan_schema())


for command in (recommend, compare, frontier, inspect, export, fit, laws, hardware, backtest, verify):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    cli(prog_name="moeplan")
