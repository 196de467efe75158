"""`headgate usage`: requests, tokens, cost and latency by tenant, user, model or time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_note,
    print_table,
)
from headgate.producer.cli.terminal.session import whole_batch_id

if TYPE_CHECKING:
    from headgate.producer.usage.report import UsageReport, UsageRow

_COLUMNS = (
    "requests", "failed", "hits", "errors", "input", "cached", "output", "USD", "saved USD",
    "mean ms", "p50 ms", "p95 ms", "p99 ms",
)  # fmt: skip

_OPTIONAL = ("mean ms", "cached", "p99 ms", "saved USD", "failed", "p50 ms", "output", "input")
"""The columns to hide on a narrow terminal, the first one first."""


@click.command()
@click.option(
    "--by",
    default="model",
    show_default=True,
    metavar="NAME,...",
    help="Group by tenant, user, model, template, batch, day, month; several with commas.",
)
@click.option(
    "--since", metavar="D",
    help="From a day (2026-11-20, UTC), a moment, or 30s, 10m, 2h, 7d ago (default: all time).",
)  # fmt: skip
@click.option(
    "--until", metavar="D",
    help="To the end of a day (UTC), or before a moment (default: now).",
)  # fmt: skip
@click.option("--tenant", metavar="T", help="Only this tenant.")
@click.option("--user", metavar="U", help="Only this user.")
@click.option("--model", metavar="M", help="Only this model: the one that answered.")
@click.option("--template", metavar="NAME", help="Only this template.")
@click.option("--batch", metavar="ID", help="Only this batch.")
@click.option("--limit", type=int, metavar="N", help="Only the N rows with the highest cost.")
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="Print CSV with a header line. A name that starts like a formula gets an apostrophe.",
)
@json_option
def usage(
    by: str, since: str | None, until: str | None, as_csv: bool, as_json: bool, **asked: Any
) -> None:
    """Show usage: requests, tokens, cost, savings and latency.

    It counts jobs that have ended, by the time of their end. Cost and savings are in USD.

    \b
    hits    share of succeeded jobs answered from the cache or from an
            equal request's call
    errors  share of failed jobs among those not cancelled
    p50 ms  latency of succeeded jobs (percentiles within 1 %)

    \b
    Example: headgate usage --by tenant,day --since 7d
    """
    from headgate.producer.cli.terminal.servers import open_client

    if as_csv and as_json:
        raise click.UsageError("--csv and --json cannot be used together")
    if asked["batch"] is not None:
        asked["batch"] = whole_batch_id(asked["batch"], "--batch")
    begin, end = _parse_when(since, "--since"), _parse_when(until, "--until")
    with open_client() as client:
        found = client.usage(by, since=begin, until=end, **asked)
    if as_json:
        print_json(found.as_json())
    elif as_csv:
        _csv(found)
    else:
        _table(found)
    for option, asked_for, used in (("--since", begin, found.since), ("--until", end, found.until)):
        if _is_moved(asked_for, used):
            print_note(f"{option} is {used}: of that day only the sums are kept")


def _is_moved(asked: date | timedelta | None, used: str | None) -> bool:
    """Return whether the report begins or ends at another moment than was asked for."""
    if isinstance(asked, timedelta):
        asked = datetime.now(UTC) - asked
    if not isinstance(asked, datetime) or used is None:
        return False  # whole days are never moved
    # The moment of an age has passed on meanwhile.
    return abs(asked - datetime.fromisoformat(used)) > timedelta(minutes=1)


def _parse_when(text: str | None, option: str) -> date | timedelta | None:
    from headgate.producer.moments import parse_day_or_moment

    return None if text is None else parse_day_or_moment(text, option)


def _csv(found: UsageReport) -> None:
    import csv
    import io

    from headgate.producer.usage.report import FIGURES

    rows = (one.as_json() | {name: _as_text(cell) for name, cell in one.key.items()}
            for one in found.rows)  # fmt: skip
    for record in ([*found.by, *FIGURES], *(row.values() for row in rows)):
        text = io.StringIO()
        # The writer quotes a line end within a name only if it ends lines with it.
        csv.writer(text, lineterminator="\r\n").writerow(record)
        print_line(text.getvalue().removesuffix("\r\n"))


def _as_text(cell: str | None) -> str | None:
    """Return the cell so that a spreadsheet shows it as text, where it would be a formula.

    Names of tenants and users come from outside. An apostrophe in front is the usual mark of text.
    """
    is_formula = cell is not None and cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{cell}" if is_formula else cell


def _table(found: UsageReport) -> None:
    names = found.by or ("",)
    total = ("total",) + ("",) * (len(names) - 1)
    rows = [(*one.key.values(), *_cells(one)) for one in found.rows] if found.by else []
    print_table((*names, *_COLUMNS), [*rows, (*total, *_cells(found.total))], optional=_OPTIONAL)
    if found.total.unpriced:
        print_note(f"jobs whose cost is unknown: {found.total.unpriced} (counted as 0 USD)")


def _cells(one: UsageRow) -> tuple[object, ...]:
    return (
        one.requests, one.failed, _percent(one.hit_rate), _percent(one.error_rate),
        one.input_tokens, one.cached_input_tokens, one.output_tokens, cells.usd(one.cost_usd),
        cells.usd(one.saved_usd),
        one.mean_latency_ms, one.p50_latency_ms, one.p95_latency_ms, one.p99_latency_ms,
    )  # fmt: skip


def _percent(share: float | None) -> cells.Cell | None:
    return cells.amount(None if share is None else f"{share:.1%}")
