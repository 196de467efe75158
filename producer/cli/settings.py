"""`headgate settings`: all settings in force."""

from __future__ import annotations

import click

from headgate.producer.cli.terminal.output import json_option, print_json, print_table


@click.command()
@json_option
def settings(as_json: bool) -> None:
    """List all settings with value, source and meaning.

    Secrets are masked. The source is the environment, the file .env in the current folder, or the
    default.
    """
    from pydantic import SecretStr

    from headgate.shared import settings as reader

    in_force = reader.load()
    found = []
    for field, form in reader.Settings.model_fields.items():
        value = getattr(in_force, field)
        if isinstance(value, SecretStr):
            shown = "***"
        elif value is None:
            shown = None
        else:
            shown = reader.masked(str(value))
        name = reader.variable(field)
        source = reader.read(name)[1]
        found.append(
            {"name": name, "value": shown, "source": source, "meaning": form.description or ""}
        )
    if as_json:
        for one in found:
            print_json(one)
    else:
        print_table(("name", "value", "source", "meaning"), [list(one.values()) for one in found])
