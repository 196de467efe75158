"""`headgate usage`: who used what."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.terminal.exit_codes import say
from headgate.producer.cli.terminal.options import moment
from headgate.producer.cli.terminal.output import document, json_option, line, rows

if TYPE_CHECKING:
    from headgate.producer.usage.period import Moment
    from headgate.producer.usage.report import UsageReport, UsageRow

_COLUMNS = (
    "requests", "failed", "hits", "errors", "input", "cached", "output", "USD", "saved USD",
    "mean ms", "p50 ms", "p95 ms", "p99 ms",
)  # fmt: skip

_LEFT_OUT = ("mean ms", "cached", "p99 ms", "saved USD", "failed", "p50 ms", "output", "input")
"""What a narrow terminal does without, the first to go first."""


@click.command()
@click.option(
    "--by",
    default="model",
    show_default=True,
    metavar="NAME,...",
    help="By tenant, user, model, template, batch, day, month; several with commas.",
)
@click.option("--since", metavar="D", help="From a day (UTC), a moment, or 30s, 10m, 2h, 7d ago.")
@click.option("--until", metavar="D", help="To the end of a day (UTC), or before a moment.")
@click.option("--tenant", metavar="T", help="Only this tenant.")
@click.option("--user", metavar="U", help="Only this user.")
@click.option("--model", metavar="M", help="Only this model: the one that answered.")
@click.option("--template", metavar="NAME", help="Only this template.")
@click.option("--batch", metavar="ID", help="Only this batch.")
@click.option("--limit", type=int, metavar="N", help="Only the N rows that cost most.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV: a line of names, then the rows.")
@json_option
def usage(
    by: str, since: str | None, until: str | None, as_csv: bool, as_json: bool, **asked: Any
) -> None:
    """Show who used what: requests, tokens, money, money saved, and how quick the answers were.

    Of jobs that have ended, by when they ended. Money counts to the last job. hits: answers from
    the cache or an equal request's call, of all that succeeded; errors: failed jobs, of all that
    were not cancelled. Latencies are of jobs that succeeded; percentiles are exact to 1 %.
    """
    from headgate.producer.client.client import Client

    if as_csv and as_json:
        raise click.UsageError("--csv and --json do not go together")
    begin, end = _when(since, "--since"), _when(until, "--until")
    with Client() as client:
        found = client.usage(by, since=begin, until=end, **asked)
    if as_json:
        document(found.as_json())
    elif as_csv:
        _csv(found)
    else:
        _table(found)


def _when(said: str | None, option: str) -> Moment | None:
    from headgate.shared.errors import WrongUse

    if said is None:
        return None
    if re.fullmatch(r"\d{4}-\d\d-\d\d", said):
        try:
            return date.fromisoformat(said)
        except ValueError as error:
            raise WrongUse(option, said, f"there is no such day: {error}") from None
    return moment(said, option)


def _csv(found: UsageReport) -> None:
    import csv
    import io

    from headgate.producer.usage.report import FIGURES

    for record in ([*found.by, *FIGURES], *(one.as_json().values() for one in found.rows)):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(record)
        line(text.getvalue())


def _table(found: UsageReport) -> None:
    names = found.by or ("",)
    total = ("total",) + ("",) * (len(names) - 1)
    cells = [(*one.key.values(), *_cells(one)) for one in found.rows] if found.by else []
    rows((*names, *_COLUMNS), [*cells, (*total, *_cells(found.total))], optional=_LEFT_OUT)
    if found.total.unpriced:
        say(f"of {found.total.unpriced} jobs the cost is not known: it counts as 0")


def _cells(one: UsageRow) -> tuple[object, ...]:
    return (
        one.requests, one.failed, _percent(one.hit_rate), _percent(one.error_rate),
        one.input_tokens, one.cached_input_tokens, one.output_tokens, one.cost_usd, one.saved_usd,
        one.mean_latency_ms, one.p50_latency_ms, one.p95_latency_ms, one.p99_latency_ms,
    )  # fmt: skip


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"
