"""`moeplan help`: what a command takes, and what the words of an answer mean."""

from __future__ import annotations

import click

from moeplan.cli.program import Command


@click.command("help", cls=Command)
@click.argument("topic", required=False)
@click.pass_context
def show_help(ctx: click.Context, topic: str | None) -> None:
    """Say what a command takes, or what the words of an answer mean.

    TOPIC is a command, as with its --help, or words: the glossary. Without it the commands are listed.

    \b
    Examples:
      moeplan help words
      moeplan help recommend
    """
    root = ctx.find_root()
    assert isinstance(root.command, click.Group)
    if topic == "words":
        from moeplan.report.output import emit_sections
        from moeplan.report.words import word_sections

        emit_sections(word_sections(), pager=True)
    elif topic is None:
        click.echo(root.get_help())
    elif topic in root.command.commands:
        command = root.command.commands[topic]
        with click.Context(command, info_name=topic, parent=root) as own:
            click.echo(command.get_help(own))
    else:
        raise click.UsageError(f"no help on {topic!r}; there is words, and {', '.join(root.command.commands)}")
