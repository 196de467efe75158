"""`headgate catalog`: the file of models, limits and prices."""

from __future__ import annotations

from pathlib import Path

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal.output import json_option, print_json, print_line, print_note
from headgate.producer.cli.terminal.session import open_session


@click.group(context_settings=HELP)
def catalog() -> None:
    """Check or reload the catalog of models, limits and prices."""


@catalog.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
def check(file: Path | None, as_json: bool) -> None:
    """Check a catalog file and report every fault.

    FILE is a TOML file that overrides the built-in catalog (default: HEADGATE_CATALOG, else the
    built-in catalog alone). The exit code is 2 if it has a fault.

    \b
    Example: headgate catalog check catalog.toml
    """
    from headgate.shared import settings
    from headgate.shared.catalog import catalog as reader
    from headgate.shared.routing.capabilities import gaps

    overlay = file or settings.load().catalog
    found = reader.load(overlay)
    built_in = gaps(reader.load())
    warnings = [text for text in gaps(found) if text not in built_in]
    facts = {
        "file": str(overlay or reader.BUILT_IN),
        "models": len(found.models),
        "providers": len(found.providers),
        "pools": len(found.pools),
        "tiers": len(found.tiers),
        "digest": found.digest,
        "warnings": warnings,
    }
    if as_json:
        print_json(facts)
    else:
        counts = f"{facts['models']} models of {facts['providers']} providers"
        print_line(f"{facts['file']}: no fault; {counts}, {facts['pools']} pools with limits")
        for text in warnings:
            print_note(f"warning: {text}")


@catalog.command()
@json_option
def reload(as_json: bool) -> None:
    """Make all running processes read HEADGATE_CATALOG again.

    Each process reads the file on its own machine, so copy the new file to all machines first. A
    file with a fault changes nothing.
    """
    from headgate.producer.admin import limits

    with open_session() as at:
        number, digest = limits.reload(at), at.catalog.digest
    if as_json:
        print_json({"version": number, "digest": digest})
    else:
        print_line(f"catalog {digest} is in force; all processes read their file within 1 s")
