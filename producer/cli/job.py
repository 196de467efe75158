"""`headgate jobs` lists jobs, `headgate job show` tells what became of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.options import PRIORITY, parse_moment
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_note,
    print_pairs,
    print_table,
)
from headgate.producer.cli.terminal.request_options import pairs_of
from headgate.producer.cli.terminal.session import open_record, whole_batch_id, whole_job_id

if TYPE_CHECKING:
    from headgate.producer.results.listing import Listed
    from headgate.producer.results.timeline import Event, JobTimeline


@click.command()
@click.option(
    "--status",
    metavar="S",
    help="Only jobs with this status: queued, running, deferred, succeeded, failed, cancelled or "
    "expired.",
)
@click.option("--code", metavar="C", help="Only jobs that ended with this error code.")
@click.option("--tenant", help="Only jobs of this tenant.")
@click.option("--user", help="Only jobs of this user.")
@click.option("--model", metavar="M", help="Only jobs that asked for this model, or got it.")
@click.option("--batch", metavar="ID", help="Only jobs of this batch.")
@click.option("--priority", type=PRIORITY, help="Only jobs of this priority.")
@click.option(
    "--metadata",
    metavar="K=V",
    multiple=True,
    help="Only jobs whose metadata has this; repeatable.",
)
@click.option(
    "--since",
    metavar="D",
    help="Only jobs submitted since: 30s, 10m, 2h or 7d ago, or a moment in UTC.",
)
@click.option(
    "--before",
    metavar="ID",
    help="Only jobs that stand after this one in the list: the next page.",
)
@click.option(
    "--limit", type=int, default=50, show_default=True, metavar="N", help="List at most N jobs."
)
@json_option
def jobs(
    since: str | None, before: str | None, batch: str | None, metadata: tuple[str, ...],
    limit: int, as_json: bool, **filters: Any,
) -> None:  # fmt: skip
    """List jobs, the newest first.

    \b
    why     error code of a job that did not succeed, or the kind
            of limit, pause or turn that a job waits for
    took    time from its start to its end
    cost    all its attempts together, in USD

    On a terminal, ids are cut: commands take the beginning of an id. Jobs that an older release has
    submitted are not found by --metadata.

    \b
    Examples:
      headgate jobs --status failed --since 2h
      headgate jobs --metadata run=7 --code rate_limited
    """
    from headgate.producer.cli.terminal.servers import open_client

    before = None if before is None else whole_job_id(before, "--before")
    batch = None if batch is None else whole_batch_id(batch, "--batch")
    with open_client() as client:
        found = client.jobs(
            **filters,
            since=None if since is None else parse_moment(since),
            before=before,
            batch=batch,
            metadata=dict(pairs_of("--metadata", metadata)) or None,
            limit=limit,
        )
    if as_json:
        for one in found:
            print_json(one.as_json())
        return
    _print_jobs(found)
    if len(found) == limit:
        print_note(f"there may be more; for the next page add --before {found[-1].id}")


_COLUMNS = (
    "id", "status", "why", "took", "cost", "model", "submitted", "tenant", "user", "priority",
    "batch", "waiting for", "finished",
)  # fmt: skip
_OPTIONAL = (
    "finished", "batch", "priority", "user", "tenant", "waiting for", "submitted", "model", "cost",
)  # fmt: skip


def _print_jobs(found: Sequence[Listed]) -> None:
    from headgate.shared.job.ids import now_ms

    at_ms = now_ms()
    ids = cells.short_ids([one.id for one in found])
    batches = cells.short_ids([one.batch_id for one in found], "batch_")
    print_table(
        _COLUMNS,
        (
            (
                job_id, cells.state(one.status), _why(one), cells.milliseconds(one.duration_ms),
                cells.usd(one.cost_usd), one.model_used or one.model,
                cells.moment(one.submitted_at, at_ms), one.tenant, one.user, one.priority, batch,
                one.waiting_for and one.waiting_for.in_words(at_ms).removeprefix("waiting for "),
                cells.moment(one.finished_at, at_ms),
            )
            for one, job_id, batch in zip(found, ids, batches, strict=True)
        ),
        optional=_OPTIONAL,
    )  # fmt: skip


def _why(one: Listed) -> str | None:
    """Return why the job did not succeed, or of what kind its wait is."""
    return one.code if one.waiting_for is None else f"waits: {one.waiting_for.kind}"


@click.group(context_settings=HELP)
def job() -> None:
    """Look at one job."""


@job.command()
@click.argument("job_id", metavar="ID")
@click.option("--content", is_flag=True, help="Also print the request and the answer.")
@json_option
def show(job_id: str, content: bool, as_json: bool) -> None:
    """Show what became of the job ID: its waits, its attempts and its money.

    It prints no prompt and no answer without --content. Of a job that was deleted
    (HEADGATE_KEEP_DAYS) it shows what the audit line and the attempts say.

    \b
    Example: headgate job show 0192f3c4-5b6a
    """
    from headgate.producer.results.timeline import timeline

    job_id = whole_job_id(job_id)
    with open_record() as (engine, _, find_waits):
        found = timeline(engine, job_id, find_waits, content=content)
    if as_json:
        print_json(found.as_json())
        return
    print_pairs(list(_pairs(found)))
    print_line("")
    rows = list(_rows(found.events))
    print_table(("after", "event", "waited", "took", "in", "out", "cost", "what"), rows,
                optional=("in", "out"))  # fmt: skip
    if found.content is not None:
        _print_content(found.content)


def _pairs(found: JobTimeline) -> Iterator[tuple[str, object]]:
    from headgate.shared.job.ids import now_ms

    owner = found.tenant if found.user is None else f"{found.tenant}, user {found.user}"
    used = found.model_used
    yield "job", found.id
    yield "status", found.status if found.code is None else f"{found.status} ({found.code})"
    if found.message is not None:
        yield "error", found.message
    if found.waiting_for is not None:
        yield "waits", f"{found.waiting_for.in_words(now_ms())}; {found.waiting_for.help}"
    yield "model", found.model if used in (None, found.model) else f"{found.model}, used {used}"
    yield "priority", found.priority
    yield "tenant", owner
    if found.batch_id is not None:
        yield "batch", f"{found.batch_id}, {found.custom_id or 'line ' + str(found.batch_line)}"
    yield "submitted", found.events[0].at
    if found.deadline_at is not None:
        yield "deadline", found.deadline_at
    if found.cached is not None:
        saved = "" if found.saved_usd is None else f", saved {cells.dollars(found.saved_usd)}"
        yield "cached", found.cached + saved
    yield "cost", cells.dollars(found.cost_usd)
    if found.metadata:
        yield "metadata", ", ".join(f"{name}={value}" for name, value in found.metadata.items())


def _rows(events: Sequence[Event]) -> Iterator[tuple[object, ...]]:
    from headgate.shared.job.waiting_for import ms_of

    first_ms = ms_of(events[0].at) or 0
    for event in events:
        facts = event.facts
        after_ms = None if event.at is None else (ms_of(event.at) or 0) - first_ms
        is_attempt = event.kind == "attempt"
        yield (
            cells.milliseconds(after_ms),
            f"attempt {facts['n']}" if is_attempt else cells.state(event.kind),
            cells.milliseconds(facts.get("waited_ms", facts.get("queued_ms"))),
            cells.milliseconds(facts.get("latency_ms", facts.get("took_ms"))),
            cells.number(facts.get("input_tokens")),
            cells.number(facts.get("output_tokens")),
            cells.usd(facts.get("cost_usd")),
            _what(facts) if is_attempt else facts.get("code") or facts.get("cached"),
        )


def _what(facts: dict[str, Any]) -> str:
    """Return what an attempt asked and what came of it."""
    http = "" if facts["http_status"] is None else f" (HTTP {facts['http_status']})"
    text = f"{facts['provider']}/{facts['model'].rpartition('/')[2]}: "
    if facts["code"] is None:
        return text + str(facts["state"])
    message = "" if facts["message"] is None else f": {facts['message']}"
    return f"{text}{facts['code']}{http}{message}"


def _print_content(content: dict[str, Any]) -> None:
    request, result = content["request"] or {}, content["result"] or {}
    for name in ("dialect", "prompt", "messages", "input", "template", "variables", "params"):
        if request.get(name):
            print_line(f"\n{name}:")
            value = request[name]
            print_line(value) if isinstance(value, str) else print_json(value)
    if result.get("content") is not None:
        print_line("\nanswer:")
        print_line(result["content"])
    elif result.get("message") is not None:
        print_line("\nanswer:")
        print_json(result["message"])
