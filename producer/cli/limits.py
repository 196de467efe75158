"""`headgate limits`: what limits jobs now, who waits for it, and changes that hold at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal.exit_codes import say
from headgate.producer.cli.terminal.output import document, json_option, line, printable, rows
from headgate.producer.cli.terminal.session import opened

if TYPE_CHECKING:
    from headgate.producer.admin.limits_rows import LimitsReport, PoolRow
    from headgate.shared.admission.limits import Amounts


@click.group(context_settings=HELP, invoke_without_command=True)
@click.option("--pool", metavar="P", help="Only this pool, such as openai/gpt-4o-mini.")
@click.option("--tenant", metavar="T", help="Only this tenant: its buckets, and its waiting jobs.")
@json_option
@click.pass_context
def limits(ctx: click.Context, pool: str | None, tenant: str | None, as_json: bool) -> None:
    """Show each bucket, its limit and fill, and who waits for it; `set` and `unset` change limits.

    Limits of calls and tokens are a minute's, rpd is a day's. `from` says who set the limit: the
    catalog, an operator (set), or the provider's headers.
    """
    if ctx.invoked_subcommand is not None:
        if pool is not None or tenant is not None or as_json:
            raise click.UsageError("options of `limits` itself do not go with a command")
        return
    from headgate.producer.admin.limits_report import report

    with opened() as at:
        found = report(at, pool=pool, tenant=tenant)
    if as_json:
        document(found.as_json())
    else:
        _show(found)


@limits.command("set")
@click.argument("scope")
@click.argument("amounts", metavar="MEASURE=VALUE...", nargs=-1, required=True)
@json_option
def set_(scope: str, amounts: tuple[str, ...], as_json: bool) -> None:
    """Lay limits over the catalog's, at once and until they are unset.

    SCOPE: global, provider/NAME, pool/PROVIDER/NAME, tenant/NAME, tenant/*, user/TENANT/NAME,
    tier/NAME, tier/NAME/MODEL. MEASURE: rpm, tpm, input_tpm, output_tpm, rpd, concurrent, burst_s,
    and weight of a tenant; usd_per_day, usd_per_month, soft and hard of the budget of global, of a
    tenant and of a user. The value `none` lifts a limit.
    """
    from headgate.producer.admin import limits as acts

    with opened() as at:
        named = acts.scope_of(scope, at.catalog)
        _tell(named, acts.change(at, named, acts.amounts_of(named, amounts)), as_json)


@limits.command()
@click.argument("scope")
@click.argument("measures", metavar="[MEASURE]...", nargs=-1)
@json_option
def unset(scope: str, measures: tuple[str, ...], as_json: bool) -> None:
    """Go back to the catalog's limits of SCOPE: of these measures, or of all."""
    from headgate.producer.admin import limits as acts

    with opened() as at:
        named = acts.scope_of(scope, at.catalog, to_unset=acts.is_set(at))
        _tell(named, acts.undo(at, named, measures), as_json)


def _tell(scope: str, amounts: Amounts, as_json: bool) -> None:
    from headgate.producer.admin.limits import shown
    from headgate.shared.admission.limits import written

    name = shown(scope)
    if as_json:
        document({"scope": name, "set": amounts})
    else:
        line(f"{printable(name)} {written(amounts) if amounts else 'is as the catalog says'}")


def _show(found: LimitsReport) -> None:
    names = ("bucket", "measure", "limit", "from", "fill", "left", "running", "key")
    rows(
        names,
        (
            (
                one.scope, one.measure, f"{one.limit:g}" if one.limit < 1e6 else f"{one.limit:.0f}",
                one.whence, None if one.fill is None else f"{one.fill:.0%}",
                None if one.left is None else f"{one.left:.0f}", one.running, one.key,
            )
            for one in found.buckets
        ),
        optional=("key", "running", "left"),
    )  # fmt: skip
    if found.gates:
        line("")
        gates = (
            (one.pool, one.state, one.why, one.until, f"{one.pace:.0%}", one.ceiling, one.key)
            for one in found.gates
        )
        rows(("gate", "state", "why", "until", "pace", "ceiling", "key"), gates, optional=("key",))
    if found.pools:
        line("")
        _show_pools(found.pools)
    tenants = [
        (one.pool, tenant.tenant, tenant.waiting, _span(tenant.drain_s))
        for one in found.pools
        for tenant in one.by_tenant
    ]
    if tenants:
        line("")
        rows(("pool", "tenant", "waiting", "by own limits"), tenants)
    if found.lockouts:
        line("")
        locked = ((one.tenant, one.user, one.until, one.count) for one in found.lockouts)
        rows(("locked out", "user", "until", "lockouts"), locked)
    for words in _notes(found):
        say(words)


def _show_pools(found: Any) -> None:
    names = (
        "pool", "waiting", "interactive", "standard", "bulk", "oldest", "drains in", "running",
        "held tokens",
    )  # fmt: skip

    def cells(one: PoolRow) -> tuple[object, ...]:
        by = one.by_priority
        drains = "paused" if one.paused else _span(one.drain_s)
        return (
            one.pool, one.waiting, by.get("interactive"), by.get("standard"), by.get("bulk"),
            _span(one.oldest_age_s), drains, one.running, one.held_tokens,
        )  # fmt: skip

    rows(names, map(cells, found), optional=("held tokens", "running", "oldest"))


def _notes(found: LimitsReport) -> list[str]:
    notes = [f"paused: {printable(name)}" for name in found.paused]
    others = [one for one in found.pools if one.other_tenants]
    notes += [f"{one.pool}: {one.waiting_of_others} more jobs of {one.other_tenants} other tenants"
              for one in others]  # fmt: skip
    notes += [f"{queue}: {n} messages that no worker has looked at"
              for queue, n in found.unsorted.items()]  # fmt: skip
    if found.lockouts is None:
        notes.append("too many keys to look for all lockouts: --tenant shows a tenant's")
    if found.callers_left_out:
        notes.append(f"{found.callers_left_out} more tenants and users: --tenant shows them")
    return notes


def _span(seconds: float | None) -> str | None:
    """A time in two units at most: 45s, 2m05s, 3h20m, 2d03h."""
    if seconds is None:
        return None
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    for unit, size, most, below, part in _UNITS:
        if whole < size * most:
            return f"{whole // size}{unit}{whole % size // part:02d}{below}"
    return f"{whole // 86_400}d"


_UNITS = (("m", 60, 60, "s", 1), ("h", 3600, 48, "m", 60), ("d", 86_400, 100, "h", 3600))
"""Of a span: unit, its seconds, most of them, the unit below, its seconds."""
