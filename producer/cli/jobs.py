"""`headgate submit`, `result`, `cancel`, `jobs`: single jobs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.terminal.exit_codes import DONE, FAILED, INTERRUPTED, say
from headgate.producer.cli.terminal.output import document, json_option, line, rows

if TYPE_CHECKING:
    from headgate.producer.client.client import Client
    from headgate.shared.job.result import Result, Status

from headgate.producer.cli.terminal.options import PRIORITY, moment

_TURN_S = 1.0


@click.command()
@click.argument("prompt", required=False)
@click.option("--template", metavar="NAME", help="A prompt of the catalog, in place of PROMPT.")
@click.option("--var", "variables", metavar="K=V", multiple=True, help="A variable of it.")
@click.option("--model", help="The model (default: HEADGATE_MODEL).")
@click.option("--priority", type=PRIORITY, help="How urgent it is (default: standard).")
@click.option("--tenant", help="For whom.")
@click.option("--user", help="The user of the tenant.")
@click.option("--tier", help="The caller's tier (default: as HEADGATE_TIERS says).")
@click.option(
    "--on-limit",
    type=click.Choice(["wait", "refuse"]),
    help="At a limit of the caller, wait in line (default) or be refused.",
)
@click.option("--max-tokens", type=int, metavar="N", help="Longest answer.")
@click.option("--max-cost-usd", metavar="X", help="The most that all its attempts may cost.")
@click.option("--max-usd-per-million", metavar="X", help="With auto: the dearest rate of a token.")
@click.option(
    "--prefer",
    type=click.Choice(["speed", "quality", "cost"]),
    help="With auto: what matters (cost).",
)
@click.option("--idempotency-key", metavar="K", help="Submitted again within a day: the same job.")
@click.option("--wait", is_flag=True, help="Wait for the answer and print it.")
@click.option("--stream", is_flag=True, help="Print the answer while it is made.")
@json_option
def submit(
    prompt: str | None,
    variables: Sequence[str],
    max_tokens: int | None,
    wait: bool,
    stream: bool,
    as_json: bool,
    **options: str | None,
) -> int:
    """Submit PROMPT (`-` or nothing: standard input); print the job id, or the answer."""
    from headgate.producer.client.client import Client

    fields: dict[str, Any] = {k: v for k, v in options.items() if v is not None}
    if prompt is not None or "template" not in fields:
        fields["prompt"] = words_given(prompt)
    if variables:
        fields["variables"] = _variables(variables)
    if max_tokens is not None:
        fields["params"] = {"max_tokens": max_tokens}
    if stream:
        fields["stream"] = True
    with Client() as client:
        job = client.submit(**fields)
        if stream:
            from headgate.producer.cli.stream import print_stream

            whole = print_stream(client, job.id, as_json)
            return INTERRUPTED if whole is None else _print(whole, as_json, streamed=True)
        if not wait:
            document({"id": job.id}) if as_json else line(job.id)
            return DONE
        result = _ended(client, job.id, None, may_start=True)
    return INTERRUPTED if result is None else _print(result, as_json)


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until the job has ended.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="S", help="Wait at most S seconds."
)
@json_option
def result(job_id: str, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Print the answer of the job ID."""
    from headgate.producer.client.client import Client

    with Client() as client:
        found = client.result(job_id)
        if not found.ended and (wait or timeout is not None):
            waited = _ended(client, job_id, timeout, may_start=False)
            if waited is None:
                return INTERRUPTED
            found = waited
    return _print(found, as_json)


@click.command()
@click.argument("job_id", metavar="ID")
@json_option
def cancel(job_id: str, as_json: bool) -> int:
    """Cancel the job ID, also while the provider is answering."""
    from headgate.producer.client.client import Client

    with Client() as client:
        found = client.cancel(job_id)
    if as_json:
        document(found.as_json())
    elif found.status == "cancelled":
        line(f"{found.id} is cancelled")
    elif found.ended:
        say(f"job {found.id} had ended before: {found.status}")
    else:
        say(f"job {found.id} is still {found.status}; its worker has been told")
    return DONE if found.status == "cancelled" else FAILED


@click.command()
@click.option("--status", help="Only those of this status.")
@click.option("--tenant", help="Only those of this tenant.")
@click.option("--since", metavar="D", help="Not older than 30s, 10m, 2h, 7d, or a moment in UTC.")
@click.option("--limit", type=int, default=50, show_default=True, metavar="N", help="At most N.")
@json_option
def jobs(
    status: Status | None, tenant: str | None, since: str | None, limit: int, as_json: bool
) -> None:
    """List jobs, newest first."""
    from headgate.producer.client.client import Client

    begin = moment(since) if since is not None else None
    with Client() as client:
        found = client.jobs(status=status, tenant=tenant, since=begin, limit=limit)
    if as_json:
        for one in found:
            document(one.as_json())
        return
    names = ("id", "status", "priority", "model", "tenant", "batch", "submitted", "finished")
    rows(
        names,
        (
            (
                one.id, one.status, one.priority, one.model, one.tenant, one.batch_id,
                one.submitted_at, one.finished_at,
            )
            for one in found
        ),
        optional=("batch", "finished", "priority", "tenant", "submitted", "model"),
    )  # fmt: skip


def _variables(given: Sequence[str]) -> dict[str, str]:
    """The variables of a template from `name=value`, the value as it stands."""
    found: dict[str, str] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not name or name in found:
            raise click.BadParameter(f"{one!r}: give NAME=VALUE, each name once")
        found[name] = value
    return found


def words_given(prompt: str | None) -> str:
    """The prompt from the argument or from standard input, less one newline at its end."""
    from headgate.shared.errors import WrongUse

    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, or `-` to read it from standard input")
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        remedy = f"byte {error.start + 1} is not UTF-8; give text in UTF-8"
        raise WrongUse("standard input", error.object[error.start : error.end], remedy) from None


def _ended(
    client: Client, job_id: str, timeout_s: float | None, *, may_start: bool
) -> Result | None:
    """The result after the job's end; None when interrupted. Raises JobTimeout, and Unreachable
    when the record stays away."""
    import time
    from functools import partial

    from headgate.producer.cli.terminal.interrupt import Interrupt
    from headgate.producer.errors import JobTimeout
    from headgate.producer.local.own_worker import OwnWorker
    from headgate.producer.reconnect import Reconnect

    began = time.monotonic()

    def is_over() -> bool:
        return timeout_s is not None and time.monotonic() - began >= timeout_s

    words = f"interrupted; job {job_id} stays queued: headgate result {job_id} --wait"
    with (
        Interrupt(words) as stop,
        OwnWorker(client.open(), say, stop.at_once, may_start=may_start) as workers,
    ):
        patience = Reconnect(client.open(), say, lambda: stop.wanted() or is_over())
        while not stop.wanted():
            waited_s = time.monotonic() - began
            turn_s = _TURN_S if timeout_s is None else min(_TURN_S, timeout_s - waited_s)
            try:
                return patience(partial(client.result, job_id, timeout_s=max(0.0, turn_s)))
            except JobTimeout:
                if timeout_s is not None and is_over():
                    raise JobTimeout(job_id, timeout_s) from None
                workers.care(waited_s)
    return None


def _print(result: Result, as_json: bool, *, streamed: bool = False) -> int:
    if as_json:
        document(result.as_json())
    elif result.status == "succeeded":
        _print_answer(result, streamed)
    elif result.error is not None:
        say(f"job {result.id} {result.status}: {result.error.code}: {result.error.message}")
    else:
        when = f" until {result.retry_at}" if result.retry_at else ""
        say(f"job {result.id} is {result.status}{when}")
    return DONE if result.status == "succeeded" else FAILED


def _print_answer(result: Result, streamed: bool) -> None:
    if result.embeddings is not None:
        document(result.embeddings)
        return
    if result.content is not None and not streamed:
        line(result.content)
    if result.tool_calls:
        document(result.tool_calls)
