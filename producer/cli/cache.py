"""`headgate cache`: what the cache holds and has saved; clearing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.exit_codes import confirm
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_pairs,
    print_table,
)
from headgate.producer.cli.terminal.session import open_session

if TYPE_CHECKING:
    from headgate.producer.admin.cache import CacheShare, CacheStats


@click.group(context_settings=HELP)
def cache() -> None:
    """Show the cache of answers, or clear it."""


@cache.command()
@json_option
def stats(as_json: bool) -> None:
    """Show how full the cache is and what it has saved (USD)."""
    from headgate.producer.admin.cache import stats as read_stats

    with open_session() as at:
        found = read_stats(at)
    if as_json:
        print_json(found.as_json())
    else:
        _show(found)


@cache.command()
@click.option("--tenant", metavar="T", help="Only answers for this tenant.")
@click.option("--model", metavar="M", help="Only answers of this model.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def clear(tenant: str | None, model: str | None, yes: bool, as_json: bool) -> None:
    """Delete cached answers: all, or of a tenant or a model.

    A request whose answer is deleted is sent to the provider and paid again.

    \b
    Example: headgate cache clear --tenant acme
    """
    from headgate.producer.admin.cache import clear as act

    whose = " ".join(
        f"of {kind} {name}" for kind, name in (("tenant", tenant), ("model", model)) if name
    )
    if not yes:
        confirm(f"Delete {'the cached answers ' + whose if whose else 'all cached answers'}?")
    with open_session() as at:
        deleted = act(at, tenant, model)
    if as_json:
        print_json({"cleared": deleted, "tenant": tenant, "model": model})
    else:
        print_line(f"answers deleted: {deleted}")


def _show(found: CacheStats) -> None:
    mb, bound_mb = found.bytes / 2**20, found.bound_bytes / 2**20
    rate = "-" if found.hit_rate is None else f"{found.hit_rate:.1%}"
    print_pairs(
        (
            ("cached", f"{found.entries:,} answers, {mb:.1f} of {bound_mb:.0f} MB"),
            (
                "served",
                f"{found.hits:,} hits, {found.shared:,} shared, {found.misses:,} misses ({rate})",
            ),
            ("saved", cells.dollars(found.saved_usd)),
            ("evicted", found.evicted),
            ("oldest use", found.oldest_use_at or "-"),
        )
    )
    for kind, parts in (("model", found.models), ("tenant", found.tenants)):
        if parts:
            print_line("")
            print_table((kind, "answers", "MB"), map(_cells, parts))


def _cells(part: CacheShare) -> tuple[object, ...]:
    return part.name, part.entries, cells.amount(f"{part.bytes / 2**20:.1f}")
