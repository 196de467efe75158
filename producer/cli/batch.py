"""`headgate batch`: files of prompts; `run` does everything, the others do the same in steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from headgate.producer.cli.commands import HELP
from headgate.producer.cli.terminal import cells
from headgate.producer.cli.terminal.exit_codes import DONE, FAILED, INTERRUPTED
from headgate.producer.cli.terminal.options import MAX_SAMPLES
from headgate.producer.cli.terminal.output import (
    json_option,
    print_json,
    print_line,
    print_note,
    print_pairs,
    print_table,
)
from headgate.producer.cli.terminal.request_options import GivenFields, request_options
from headgate.producer.cli.terminal.session import open_record, whole_batch_id

if TYPE_CHECKING:
    from headgate.producer.batch.input import InputSummary
    from headgate.producer.batch.output import Output
    from headgate.producer.batch.rows import Batch
    from headgate.producer.batch.summary import Summary
    from headgate.producer.installation import Installation

F = TypeVar("F", bound=Callable[..., Any])


@click.group(context_settings=HELP)
def batch() -> None:
    """Run files of prompts.

    The input is a JSONL file with one request a line, as `{"prompt": "..."}` or in the form of
    OpenAI's Batch API. `run` does everything in one command: it queues the lines, waits, and
    writes the results. The other commands do the same in steps.

    \b
    Example: headgate batch run prompts.jsonl -o answers.jsonl --model gpt-4o-mini
    """


def for_lines(command: F) -> F:
    """Give the command the options of a request, which are defaults for the lines of the input."""
    samples = click.option(
        "--samples", type=click.IntRange(1, MAX_SAMPLES), metavar="N",
        help="Make N jobs of each line without samples, each with an answer of its own.",
    )  # fmt: skip
    return request_options(samples(command))


IN = click.argument("input_path", metavar="IN.jsonl", type=click.Path(path_type=Path))
OUT = click.option(
    "-o", "--output", "output_path", metavar="OUT.jsonl", type=click.Path(path_type=Path),
    required=True, help="The JSONL file to write the results to.",
)  # fmt: skip


@batch.command()
@IN
@OUT
@for_lines
@click.option(
    "--max-in-flight", type=click.IntRange(min=1), metavar="N",
    help="Jobs of this batch that wait or run at one time (default: 10000).",
)  # fmt: skip
@click.option(
    "--resume", is_flag=True,
    help="Continue the batch that last wrote to OUT. If IN was corrected, ask its changed lines.",
)  # fmt: skip
@click.option(
    "--retry-failed", is_flag=True, help="Continue it, and ask the lines without an answer again."
)
@click.option("--overwrite", is_flag=True, help="Replace the content of OUT.")
@json_option
def run(
    input_path: Path,
    output_path: Path,
    max_in_flight: int | None,
    resume: bool,
    retry_failed: bool,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Run all prompts of IN and write the results to OUT.

    IN is a JSONL file with one request a line. Each result is written as soon as it is there, in
    the order in which the jobs end. A line of IN that is no valid request gets an error line.

    You can interrupt or kill the command at any time. Run it again with --resume to continue: an
    answer that is recorded is never paid twice. If IN was corrected meanwhile, only the lines that
    have changed are asked. The jobs of these lines as they were leave the batch and stay on record.

    The exit code is 1 if a line has no answer. Ask such lines again with --retry-failed.

    \b
    Example: headgate batch run prompts.jsonl -o answers.jsonl --model gpt-4o-mini
    """
    from headgate.producer.batch.input import scan
    from headgate.producer.batch.output import Output
    from headgate.producer.batch.summary import summarise
    from headgate.producer.cli.batch_run import follow

    if (resume or retry_failed) and overwrite:
        raise click.UsageError("--overwrite and --resume or --retry-failed cannot go together")
    summary = scan(input_path, options["samples"])
    exists = "resume" if resume or retry_failed else "overwrite" if overwrite else "refuse"
    output = Output.open(output_path, input_path, exists)  # type: ignore[arg-type]
    with closing(output), _installation() as at:
        defaults = _defaults(at, options)
        chosen, written = _begin(at, summary, output, defaults, resume, retry_failed)
        if not follow(at, chosen, input_path, output, written, max_in_flight=max_in_flight):
            return INTERRUPTED
        return _report(summarise(at.engine, at.catalog, _reread(at, chosen)), as_json, output)


def _begin(
    at: Installation, summary: InputSummary, output: Output, defaults: dict[str, Any],
    resume: bool, retry_failed: bool,
) -> tuple[Batch, dict[int, bool]]:  # fmt: skip
    """Return the batch to run and its written lines; print what has changed."""
    from headgate.producer.batch import start
    from headgate.producer.batch.rows import BatchRows

    if not (resume or retry_failed):
        return start.begin(BatchRows(at.engine), summary, output, defaults)
    found = start.resume(at, summary, output, defaults, retry_failed=retry_failed)
    for note in found.notes:
        print_note(note)
    return found.batch, found.written


@batch.command("submit")
@IN
@for_lines
@json_option
def submit(input_path: Path, as_json: bool, **options: Any) -> int:
    """Queue all prompts of IN and print the id of the batch.

    IN is a JSONL file with one request a line. Lines that are refused are reported on standard
    error. `headgate batch fetch` writes the results.

    \b
    Example: headgate batch submit prompts.jsonl --priority bulk
    """
    from headgate.producer.batch.input import scan
    from headgate.producer.batch.rows import BatchRows
    from headgate.producer.cli.batch_run import submit_only

    summary = scan(input_path, options["samples"])
    with _installation() as at:
        chosen = BatchRows(at.engine).create(summary, None, _defaults(at, options))
        print_json({"id": chosen.id, "lines": chosen.lines}) if as_json else print_line(chosen.id)
        return DONE if submit_only(at, chosen, input_path) else INTERRUPTED


@batch.command()
@click.argument("batch_id", metavar="ID")
@json_option
def status(batch_id: str, as_json: bool) -> int:
    """Show the state of the batch ID and its results so far.

    The exit code is 1 while lines are open or if a line has no answer.
    """
    from headgate.producer.batch.rows import BatchRows
    from headgate.producer.batch.summary import summarise
    from headgate.producer.batch.waits import wait_of
    from headgate.shared.job.ids import now_ms

    batch_id = whole_batch_id(batch_id)
    with open_record() as (engine, catalog, find_waits):
        record = BatchRows(engine)
        found = record.get(batch_id)
        counts = record.counts(batch_id)
        summary = summarise(engine, catalog, found)
        wait = wait_of(record, batch_id, find_waits) if summary.open else None
        if as_json:
            facts = {"batch": _described(found), "jobs": counts, "summary": summary.as_json(),
                     "waiting_for": None if wait is None else wait.as_json()}  # fmt: skip
            print_json(facts)
            return _code(summary)
        print_line(
            f"{batch_id}: {_state(found, summary)}; {found.lines} lines of {found.input_path}"
        )
        if counts:
            print_line("jobs: " + ", ".join(f"{n} {name}" for name, n in sorted(counts.items())))
        if wait is not None:
            who = f"{wait.jobs} of {wait.looked_at} waiting jobs that were looked at are "
            print_line(f"{who}{wait.waiting_for.with_help(now_ms())}")
        return _report(summary, as_json=False)


@batch.command()
@click.argument("batch_id", metavar="ID")
@OUT
@click.option("--wait", is_flag=True, help="Wait until the whole batch has ended.")
@click.option("--overwrite", is_flag=True, help="Replace the content of OUT.")
@json_option
def fetch(batch_id: str, output_path: Path, wait: bool, overwrite: bool, as_json: bool) -> int:
    """Write the results of the batch ID to OUT.

    It writes the results that are there, or with --wait waits for all of them.

    \b
    Example: headgate batch fetch batch_0192... -o answers.jsonl --wait
    """
    from headgate.producer.batch.output import Output
    from headgate.producer.batch.rows import BatchRows
    from headgate.producer.batch.summary import summarise
    from headgate.producer.cli.batch_run import fetch_into

    with _installation() as at:
        found = BatchRows(at.engine).get(whole_batch_id(batch_id))
        exists = "overwrite" if overwrite else "refuse"
        source = Path(found.input_path)
        output = Output.open(output_path, source, exists, resumable=False)  # type: ignore[arg-type]
        with closing(output):
            if not fetch_into(at, found, output, wait=wait):
                return INTERRUPTED
        return _report(summarise(at.engine, at.catalog, _reread(at, found)), as_json, output)


@batch.command()
@click.argument("batch_id", metavar="ID")
@json_option
def cancel(batch_id: str, as_json: bool) -> int:
    """Cancel the open jobs of the batch ID, also those that run.

    No further line of the batch is queued. The exit code is 1 if the batch had ended before.
    """
    from headgate.producer.batch.rows import BatchRows
    from headgate.producer.batch.run import cancel_open

    batch_id = whole_batch_id(batch_id)
    with _installation() as at, at.reaching():
        record = BatchRows(at.engine)
        found = record.get(batch_id)
        before = found.cancelled_at_ms is not None
        ended = found.submitted_at_ms is not None and not record.open_jobs(batch_id)
        if not before and not ended:
            record.mark_cancelled(batch_id)
        cancelled, running = (0, 0) if ended else cancel_open(at, batch_id)
    if as_json:
        print_json({"id": batch_id, "cancelled": cancelled, "being_stopped": running})
    elif ended:
        print_note(f"batch {batch_id} had {'been cancelled' if before else 'ended'} before")
    else:
        print_line(f"{batch_id}: {cancelled} jobs cancelled, {running} running jobs are stopping")
    return FAILED if ended and not before else DONE


@batch.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, metavar="N",
    help="List at most N batches.",
)  # fmt: skip
@json_option
def list_(limit: int, as_json: bool) -> None:
    """List batches with results and cost (USD), newest first.

    It needs only the database.
    """
    from headgate.producer.batch.rows import BatchRows
    from headgate.producer.batch.summary import summarise

    with open_record() as (engine, catalog, _):
        found = []
        for one in BatchRows(engine).latest(limit):
            summary = summarise(engine, catalog, one)
            found.append({**_described(one), "state": _state(one, summary),
                          "succeeded": summary.succeeded, "failed": summary.failed,
                          "open": summary.open, "cost_usd": summary.cost_usd})  # fmt: skip
    if as_json:
        for facts in found:
            print_json(facts)
        return
    _print_batches(found)


def _print_batches(found: list[dict[str, Any]]) -> None:
    from headgate.shared.job.ids import now_ms

    at_ms = now_ms()
    ids = cells.short_ids([facts["id"] for facts in found], "batch_")
    names = ("id", "state", "lines", "succeeded", "failed", "open", "cost_usd", "created_at",
             "input_path")  # fmt: skip
    rows = [
        (
            batch_id, cells.state(facts["state"]), *(facts[name] for name in names[2:6]),
            cells.usd(facts["cost_usd"]), cells.moment(facts["created_at"], at_ms),
            facts["input_path"],
        )
        for facts, batch_id in zip(found, ids, strict=True)
    ]  # fmt: skip
    optional = ("input_path", "created_at", "cost_usd", "lines", "succeeded")
    print_table(names, rows, optional=optional)


def _installation() -> Any:

    from headgate.producer.installation import open_installation

    return closing(open_installation())


def _defaults(at: Installation, options: dict[str, Any]) -> dict[str, Any]:
    """Return the defaults for the lines of the input; raise InvalidRequest for a wrong one."""
    from headgate.producer.submit.checks import refuse_forbidden_webhook

    samples = options.pop("samples")
    given = GivenFields.of(options)
    with given.naming():
        if (model := given.fields.get("model", "auto")) != "auto":
            at.catalog.model(model)
        given.check()
        refuse_forbidden_webhook(given.fields.get("webhook_url"), at.settings.webhook_targets)
    return given.fields if samples is None else {**given.fields, "samples": samples}


def _reread(at: Installation, found: Batch) -> Batch:
    from headgate.producer.batch.rows import BatchRows

    return BatchRows(at.engine).get(found.id)


def _state(found: Batch, summary: Summary) -> str:
    if found.cancelled_at_ms is not None:
        return "cancelled"
    if found.submitted_at_ms is None:
        return "queueing"
    return "running" if summary.open else "ended"


def _described(found: Batch) -> dict[str, Any]:
    from dataclasses import asdict

    from headgate.shared.job.ids import rfc3339

    facts = asdict(found)
    for name in ("created", "submitted", "cancelled"):
        facts[f"{name}_at"] = rfc3339(facts.pop(f"{name}_at_ms"))
    return facts


def _report(summary: Summary, as_json: bool, output: Output | None = None) -> int:
    from headgate.producer.cli.terminal.batch_summary import describe, next_command

    path = None if output is None else str(output.path.absolute())
    if as_json:
        print_json(summary.as_json())
    else:
        bad = None if output is None else output.bad_example
        print_pairs(list(describe(summary, path, bad)))
    if summary.open:
        have = "line of the batch has" if summary.open == 1 else "lines of the batch have"
        print_note(f"{summary.open} {have} not ended yet")
    if (command := next_command(summary, path)) is not None:
        print_note(f"next: {command}")
    return _code(summary)


def _code(summary: Summary) -> int:
    return DONE if summary.failed == 0 and summary.open == 0 else FAILED
