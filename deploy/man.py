"""Write the man pages of `headgate` and all its commands, from their help.

    python deploy/man.py FOLDER

`make man` writes them to build/man. Read one with `man build/man/headgate-submit.1`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click

from headgate import __version__
from headgate.producer.cli.commands import cli


def commands(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield the command and all commands below it, each with its context."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                settings = inner.context_settings
                below = click.Context(inner, info_name=name, parent=context, **settings)
                yield from commands(inner, below)


def escaped(text: str) -> str:
    """Return the text so that roff prints it as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def page(command: click.Command, context: click.Context) -> str:
    """Return the man page of one command."""
    path = context.command_path
    pieces = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{path.replace(" ", "-").upper()}" 1 "" "headgate {__version__}"',
        ".SH NAME", f"{escaped(path)} \\- {escaped(command.get_short_help_str(1000))}",
        ".SH SYNOPSIS", f"\\fB{escaped(path)}\\fR {escaped(pieces)}",
        ".SH DESCRIPTION", *_paragraphs(command.help or ""),
    ]  # fmt: skip
    found = (parameter.get_help_record(context) for parameter in command.get_params(context))
    records = [record for record in found if record and record[1]]
    if records:
        lines.append(".SH OPTIONS")
        for names, text in records:
            lines += [".TP", f"\\fB{escaped(names)}\\fR", escaped(text)]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                title = f"\\fB{escaped(path)}\\-{escaped(name)}\\fR(1)"
                lines += [".TP", title.replace(" ", "\\-"), escaped(inner.get_short_help_str(1000))]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the help in roff; what click leaves as it is (after \\b) stays as it is."""
    for paragraph in cleandoc(text).replace("\f", "").split("\n\n"):
        yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".nf", escaped(paragraph.removeprefix("\b").strip("\n")), ".fi")
        else:
            yield escaped(" ".join(paragraph.split()))


def write(folder: Path) -> list[Path]:
    """Write all pages into the folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for command, context in commands(
        cli, click.Context(cli, info_name="headgate", **cli.context_settings)
    ):
        path = folder / f"{context.command_path.replace(' ', '-')}.1"
        path.write_text(page(command, context), encoding="utf-8")
        written.append(path)
    return written


if __name__ == "__main__":
    written = write(Path(sys.argv[1]))
    sys.stdout.write(f"{len(written)} pages in {sys.argv[1]}\n")
