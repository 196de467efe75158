"""`headgate cache`: what is kept of answers, what it saved, and throwing answers away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal.exit_codes import ask
from headgate.producer.cli.terminal.output import document, json_option, line, pairs, rows
from headgate.producer.cli.terminal.session import opened

if TYPE_CHECKING:
    from headgate.producer.admin.cache import CacheShare, CacheStats


@click.group(context_settings=HELP)
def cache() -> None:
    """Show what the cache holds and saved; throw answers away."""


@cache.command()
@json_option
def stats(as_json: bool) -> None:
    """Show what is kept, within which bound, how often it served, and what it saved."""
    from headgate.producer.admin.cache import stats as look

    with opened() as at:
        found = look(at)
    if as_json:
        document(found.as_json())
    else:
        _show(found)


@cache.command()
@click.option("--tenant", metavar="T", help="Only answers to this tenant.")
@click.option("--model", metavar="M", help="Only answers of this model.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def clear(tenant: str | None, model: str | None, yes: bool, as_json: bool) -> None:
    """Throw answers away: all, or those of a tenant or a model. They are bought again if asked."""
    from headgate.producer.admin.cache import clear as act

    whose = " ".join(
        f"of {kind} {name}" for kind, name in (("tenant", tenant), ("model", model)) if name
    )
    if not yes:
        ask(f"Throw away {'the kept answers ' + whose if whose else 'all kept answers'}?")
    with opened() as at:
        gone = act(at, tenant, model)
    if as_json:
        document({"cleared": gone, "tenant": tenant, "model": model})
    else:
        line(f"{gone} answers are thrown away")


def _show(found: CacheStats) -> None:
    mb, bound_mb = found.bytes / 2**20, found.bound_bytes / 2**20
    rate = "-" if found.hit_rate is None else f"{found.hit_rate:.1%}"
    pairs(
        (
            ("kept", f"{found.entries} answers, {mb:.1f} of {bound_mb:.0f} MB"),
            ("served", f"{found.hits} hits, {found.shared} shared, {found.misses} misses ({rate})"),
            ("saved", f"{found.saved_usd} USD"),
            ("evicted", found.evicted),
            ("not used since", found.oldest_use_at or "-"),
        )
    )
    for kind, parts in (("model", found.models), ("tenant", found.tenants)):
        if parts:
            line("")
            rows((kind, "answers", "MB"), map(_cells, parts))


def _cells(part: CacheShare) -> tuple[object, ...]:
    return part.name, part.entries, f"{part.bytes / 2**20:.1f}"
