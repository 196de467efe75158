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
    "gateway": ("gateway", "gateway"),
    "alive": ("alive", "alive"),
    "flower": ("flower", "flower"),
    "simulate": ("simulate", "simulate"),
    "submit": ("jobs", "submit"),
    "result": ("jobs", "result"),
    "cancel": ("jobs", "cancel"),
    "jobs": ("job", "jobs"),
    "job": ("job", "job"),
    "retry": ("retry", "retry"),
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
    "keys": ("keys", "keys"),
    "webhooks": ("webhooks", "webhooks"),
}

#: The groups of `headgate --help`. Names of commands that are not there are left out.
GROUPS = {
    "Run it": ("up", "worker", "gateway", "simulate", "flower", "alive"),
    "Ask for answers": ("submit", "result", "cancel", "retry", "batch", "route", "quote"),
    "See what happens": ("jobs", "job", "health", "limits", "budgets", "usage", "cache",
                         "estimates", "top"),
    "Step in": ("pause", "resume", "dead", "keys", "webhooks", "export-user", "delete-user"),
    "Set it up": ("settings", "models", "catalog", "db"),
}  # fmt: skip
REST = "More"
"""The group of commands that are in none."""

#: What other programs call a command of ours.
SYNONYMS = {
    "start": "up", "serve": "up", "run": "submit", "ask": "submit", "list": "jobs", "ls": "jobs",
    "ps": "jobs", "get": "result", "status": "health", "ping": "health", "stop": "pause",
    "config": "settings", "version": "--version", "rerun": "retry", "again": "retry",
}  # fmt: skip


class Commands(click.Group):
    """The commands, in the order in which a newcomer meets them, in groups by purpose."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups of commands, each with the first sentence of its help."""
        known = {name for names in GROUPS.values() for name in names}
        groups = {**GROUPS, REST: tuple(name for name in COMMANDS if name not in known)}
        for title, names in groups.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, _sentence(command)) for name, command in found if command is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of that name; return None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        file, name = COMMANDS[cmd_name]
        found: click.Command = getattr(
            importlib.import_module(f"headgate.producer.cli.{file}"), name
        )
        if ctx.resilient_parsing:  # a shell wants to complete a line
            from headgate.producer.cli.complete import with_values

            return with_values(found)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; raise UsageError, with a similar name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = SYNONYMS.get(args[0]) or next(iter(get_close_matches(args[0], COMMANDS, 1)), "")
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean '{close}'?", ctx) from None


def _sentence(command: click.Command) -> str:
    """Return the first sentence of the command's help, whole."""
    return command.get_short_help_str(limit=1000)


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
