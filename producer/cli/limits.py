"""`headgate limits`: the limits in force, the jobs that wait for them, and changes of limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_note,
    print_table,
    printable,
)
from headgate.producer.cli.terminal.session import open_session

if TYPE_CHECKING:
    from headgate.producer.admin.limits_rows import BucketRow, GateRow, LimitsReport, PoolRow
    from headgate.shared.admission.limits import Amounts


@click.group(context_settings=HELP, invoke_without_command=True)
@click.option("--pool", metavar="P", help="Only this pool, for example openai/gpt-4o-mini.")
@click.option("--tenant", metavar="T", help="Only this tenant: its limits and its waiting jobs.")
@json_option
@click.pass_context
def limits(ctx: click.Context, pool: str | None, tenant: str | None, as_json: bool) -> None:
    """Show or change limits, and show how many jobs wait.

    `set` and `unset` change limits; without a command, all limits are shown.

    \b
    limit  per minute; rpd: per day; concurrent: calls at one time
    from   who set it: the catalog, an operator (set), or the
           provider's headers
    fill   share of the limit that is free; below 0: overdrawn
    left   requests or tokens that are free now

    \b
    Example: headgate limits --pool openai/gpt-4o-mini
    """
    if ctx.invoked_subcommand is not None:
        if pool is not None or tenant is not None or as_json:
            raise click.UsageError("put the options after the command: headgate limits set ...")
        return
    from headgate.producer.admin.limits_report import report

    with open_session() as at:
        found = report(at, pool=pool, tenant=tenant)
    if as_json:
        print_json(found.as_json())
    else:
        _show(found)


@limits.command("set")
@click.argument("scope")
@click.argument("amounts", metavar="MEASURE=VALUE...", nargs=-1, required=True)
@json_option
def set_(scope: str, amounts: tuple[str, ...], as_json: bool) -> None:
    """Set limits that override the catalog, until `unset`.

    They are in force at once and survive reloads and restarts. The value `none` removes a limit.

    \b
    SCOPE     global, provider/NAME, pool/PROVIDER/NAME, tenant/NAME,
              tenant/* (every tenant), user/TENANT/NAME, tier/NAME,
              tier/NAME/MODEL
    MEASURE   rpm                            requests a minute
              tpm, input_tpm, output_tpm     tokens a minute
              rpd                            requests a day (UTC)
              concurrent                     calls at one time
              burst_s                        seconds of the rate that
                                             may be used at once
              ramp_from                      tokens a minute above
                                             which use grows slowly,
                                             or off (pools only)
              weight                         share of a tenant's turns
                                             (tenants only; default 1)
              usd_per_day, usd_per_month     budget in USD
              soft                           share of the budget at
                                             which bulk jobs wait
              hard                           share of the budget at
                                             which all jobs stop
              (budgets: only for global, tenants and users)

    \b
    Examples:
      headgate limits set pool/openai/gpt-4o-mini rpm=600 tpm=100000
      headgate limits set tenant/acme usd_per_day=20
    """
    from headgate.producer.admin import limits as acts

    with open_session() as at:
        named = acts.scope_of(scope, at.catalog)
        _print_set(named, acts.change(at, named, acts.amounts_of(named, amounts)), as_json)


@limits.command()
@click.argument("scope")
@click.argument("measures", metavar="[MEASURE]...", nargs=-1)
@json_option
def unset(scope: str, measures: tuple[str, ...], as_json: bool) -> None:
    """Return SCOPE to the limits of the catalog.

    Name the measures to return, or none to return all.

    \b
    Example: headgate limits unset pool/openai/gpt-4o-mini rpm
    """
    from headgate.producer.admin import limits as acts

    with open_session() as at:
        named = acts.scope_of(scope, at.catalog, to_unset=acts.overridden(at))
        _print_set(named, acts.unset(at, named, measures), as_json)


def _print_set(scope: str, amounts: Amounts, as_json: bool) -> None:
    from headgate.producer.admin.limits import shown
    from headgate.shared.admission.limits import written

    name = shown(scope)
    if as_json:
        print_json({"scope": name, "set": amounts})
    else:
        print_line(f"{printable(name)} {written(amounts) if amounts else 'uses the catalog'}")


def _show(found: LimitsReport) -> None:
    _show_buckets(found.buckets)
    if found.gates:
        print_line("")
        _show_gates(found.gates)
    if found.pools:
        print_line("")
        _show_pools(found.pools)
    tenants = [
        (one.pool, tenant.tenant, tenant.waiting, cells.amount(_duration(tenant.drain_s)))
        for one in found.pools
        for tenant in one.by_tenant
    ]
    if tenants:
        print_line("")
        print_table(("pool", "tenant", "waiting", "by own limits"), tenants)
    if found.lockouts:
        print_line("")
        locked = ((one.tenant, one.user, one.until, one.count) for one in found.lockouts)
        print_table(("locked out", "user", "until", "lockouts"), locked)
    for note in _notes(found):
        print_note(note)


def _show_buckets(found: Sequence[BucketRow]) -> None:
    names = ("bucket", "measure", "limit", "from", "fill", "left", "running", "key")
    print_table(
        names,
        (
            (
                one.scope, one.measure, cells.quantity(one.limit), one.whence,
                cells.amount(None if one.fill is None else f"{one.fill:.0%}"),
                None if one.left is None else round(one.left), one.running, one.key,
            )
            for one in found
        ),
        optional=("key", "running", "left"),
    )  # fmt: skip


def _show_gates(found: Sequence[GateRow]) -> None:
    from headgate.shared.job.ids import now_ms

    at_ms = now_ms()
    rows = (
        (
            one.pool, cells.state(one.state), one.why, cells.moment(one.until, at_ms),
            cells.amount(f"{one.pace:.0%}"), one.ceiling, one.key,
        )
        for one in found
    )  # fmt: skip
    names = ("gate", "state", "why", "until", "pace", "ceiling", "key")
    print_table(names, rows, optional=("key",))


def _show_pools(found: Any) -> None:
    names = (
        "pool", "waiting", "interactive", "standard", "bulk", "oldest", "drains in", "running",
        "held tokens",
    )  # fmt: skip

    def row(one: PoolRow) -> tuple[object, ...]:
        by = one.by_priority
        drains = "paused" if one.paused else _duration(one.drain_s)
        return (
            one.pool, one.waiting, by.get("interactive"), by.get("standard"), by.get("bulk"),
            cells.amount(_duration(one.oldest_age_s)), cells.amount(drains), one.running,
            one.held_tokens,
        )  # fmt: skip

    print_table(names, map(row, found), optional=("held tokens", "running", "oldest"))


def _notes(found: LimitsReport) -> list[str]:
    notes = [f"paused: {printable(name)}" for name in found.paused]
    others = [one for one in found.pools if one.other_tenants]
    notes += [f"{one.pool}: {one.waiting_of_others} more jobs of {one.other_tenants} other tenants"
              for one in others]  # fmt: skip
    notes += [f"{queue}: {n} messages that no worker has fetched yet"
              for queue, n in found.unsorted.items()]  # fmt: skip
    notes += [_ramp_note(one) for one in found.buckets if one.ramp is not None]
    notes += [_pace_note(one) for one in found.gates if one.pace < 1]
    notes += [_test_note(one) for one in found.gates if one.asked_until is not None]
    if found.lockouts is None:
        notes.append("too many keys to find all lockouts; use --tenant to see those of a tenant")
    if found.callers_left_out:
        notes.append(f"{found.callers_left_out} more tenants and users; use --tenant to see them")
    return notes


def _ramp_note(one: BucketRow) -> str:
    return (
        f"{printable(one.scope)}: a ramp lets {one.ramp:.0f} of {one.limit:.0f} {one.measure} "
        "through now; it grows by half in 15 minutes of full use"
    )


def _pace_note(one: GateRow) -> str:
    return (
        f"{printable(one.pool)}: its provider asked for slower growth; a ramp lets {one.pace:.0%} "
        "of the tokens a minute through now, and half as much more every 15 minutes"
    )


def _test_note(one: GateRow) -> str:
    return (
        f"{printable(one.pool)}: its provider asked us to wait until {one.asked_until}; one call "
        f"tests it at {one.until}, and headgate resume pool opens it at once"
    )


def _duration(seconds: float | None) -> str | None:
    """Return a duration in at most two units: 45s, 2m05s, 3h20m, 2d03h."""
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
"""Unit, its seconds, how many of it are shown at most, the unit below, the seconds of that."""
