"""`headgate catalog`: the file of models, limits and prices."""

from __future__ import annotations

from pathlib import Path

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal.exit_codes import say
from headgate.producer.cli.terminal.output import document, json_option, line
from headgate.producer.cli.terminal.session import opened


@click.group(context_settings=HELP)
def catalog() -> None:
    """The catalog of models, limits, tiers and prices."""


@catalog.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@json_option
def check(file: Path | None, as_json: bool) -> None:
    """Check FILE (default: HEADGATE_CATALOG) laid over the built-in catalog; tell every fault."""
    from headgate.shared import settings
    from headgate.shared.catalog import catalog as reader
    from headgate.shared.routing.capabilities import gaps

    overlay = file or settings.load().catalog
    found = reader.load(overlay)
    built_in = gaps(reader.load())
    warnings = [words for words in gaps(found) if words not in built_in]
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
        document(facts)
    else:
        counts = f"{facts['models']} models of {facts['providers']} providers"
        line(f"{facts['file']}: no fault; {counts}, {facts['pools']} pools with limits")
        for words in warnings:
            say(f"warning: {words}")


@catalog.command()
@json_option
def reload(as_json: bool) -> None:
    """Read HEADGATE_CATALOG again in all running processes; a file with a fault changes nothing.

    Each process reads its own copy of the file, so put the new one everywhere first.
    """
    from headgate.producer.admin import limits

    with opened() as at:
        number, digest = limits.reload(at), at.catalog.digest
    if as_json:
        document({"version": number, "digest": digest})
    else:
        line(f"catalog {digest} is in force; running processes read theirs within a second")
