"""All commands by name; the file of a command is imported when the command is used."""

from __future__ import annotations

import importlib
from difflib import get_close_matches

import click

HELP = {"help_option_names": ["-h", "--help"]}

#: Command: the file that holds it, and the name of the click command in that file.
COMMANDS = {
    "up": ("up", "up"),
    "worker": ("worker", "worker"),
    "alive": ("alive", "alive"),
    "flower": ("flower", "flower"),
    "simulate": ("simulate", "simulate"),
    "submit": ("jobs", "submit"),
    "result": ("jobs", "result"),
    "cancel": ("jobs", "cancel"),
    "jobs": ("job", "jobs"),
    "job": ("job", "job"),
    "batch": ("batch", "batch"),
    "route": ("route", "route"),
    "models": ("models", "models"),
    "estimates": ("estimates", "estimates"),
    "usage": ("usage", "usage"),
    "limits": ("limits", "limits"),
    "health": ("health", "health"),
    "budgets": ("budgets", "budgets"),
    "cache": ("cache", "cache"),
    "pause": ("pause", "pause"),
    "resume": ("pause", "resume"),
    "settings": ("settings", "settings"),
    "catalog": ("catalog", "catalog"),
    "dead": ("dead", "dead"),
    "db": ("db", "db"),
}


class Commands(click.Group):
    """The commands, in the order in which a newcomer meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of that name; return None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        file, name = COMMANDS[cmd_name]
        found: click.Command = getattr(
            importlib.import_module(f"headgate.producer.cli.{file}"), name
        )
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; raise UsageError, with a similar name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = get_close_matches(args[0], COMMANDS, 1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean '{close[0]}'?", ctx) from None


def version(ctx: click.Context, _option: click.Option, wanted: bool) -> None:
    """Print the version and end the program if --version was given."""
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version as installed

        click.echo(f"headgate {installed('headgate')}")
        ctx.exit()


@click.group(cls=Commands, context_settings=HELP)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=version,
    help="Print the version and exit.",
)  # fmt: skip
def cli() -> None:
    """Run LLM jobs through a message queue: submit them, run workers, get the answers.

    Results go to standard output, everything else to standard error.

    \b
    Exit codes:
      0    done
      1    a job did not succeed
      2    wrong use or wrong settings
      3    a server cannot be reached
      130  interrupted

    \b
    Start here, without a key:
      headgate up --simulate
      headgate submit "Hello" --wait
    """
