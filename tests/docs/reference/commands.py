"""docs/reference/command-line.md, from the click commands."""

from __future__ import annotations

from collections.abc import Iterator

import click

from headgate.producer.cli.commands import cli
from tests.docs.reference.markdown import document, item, paragraph, text_block

INTRO = """
Every command takes `-h` and `--help`. Commands that print data take `--json`: one JSON document, or
one per line for lists. Results go to standard output, all else to standard error.

Exit codes: 0 done, 1 a job did not succeed, 2 wrong use or settings, 3 a server cannot be reached,
130 interrupted.
"""


def page() -> str:
    """Return the page."""
    sections = [_section(context) for context in walk()]
    return document("Command line", INTRO, *sections)


def walk() -> Iterator[click.Context]:
    """Yield the context of every command below `headgate`, groups before what they hold."""
    yield from _below(click.Context(cli, info_name="headgate"))


def _below(parent: click.Context) -> Iterator[click.Context]:
    group = parent.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, info_name=name, parent=parent)
        yield context
        yield from _below(context)


def _section(context: click.Context) -> str:
    command, name = context.command, context.command_path
    depth = name.count(" ") + 1
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"{'#' * depth} {name}", text_block(usage), paragraph(_help(command))]
    options = [_option(context, option) for option in command.get_params(context)]
    parts.append("\n".join(line for line in options if line))
    return "\n\n".join(part for part in parts if part)


def _help(command: click.Command) -> str:
    return (command.help or "").replace("\b\n", "").partition("\f")[0]


def _option(context: click.Context, option: click.Parameter) -> str:
    record = option.get_help_record(context)
    if record is None or "--help" in option.opts:
        return ""
    names, words = record
    if not words:
        return ""  # an argument, which the usage shows
    return item(f"`{names}`: {' '.join(words.split())}")
