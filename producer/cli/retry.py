"""`headgate retry`: failed jobs again, under their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headgate.producer.cli.terminal.exit_codes import DONE, FAILED, confirm
from headgate.producer.cli.terminal.options import parse_moment
from headgate.producer.cli.terminal.output import json_option, print_json, print_line, print_note
from headgate.producer.cli.terminal.session import open_session, whole_batch_id, whole_job_id

if TYPE_CHECKING:
    from headgate.producer.installation import Installation
    from headgate.producer.submit.retry import Retried

SHOWN = 10
"""How many refused jobs are named."""


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--batch", "batch_id", metavar="B", help="All jobs of this batch without an answer.")
@click.option(
    "--status", type=click.Choice(["failed", "expired"]),
    help="All jobs that ended so; expired: past their deadline.",
)  # fmt: skip
@click.option("--code", metavar="C", help="Only jobs with this error code, such as timeout.")
@click.option(
    "--since", metavar="D",
    help="Only jobs that ended since: 30s, 10m, 2h or 7d ago, or a moment in UTC.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def retry(ids: tuple[str, ...], yes: bool, as_json: bool, **chosen: Any) -> int:
    """Queue failed jobs again, under their ids.

    Name jobs by their ids, or choose them by --batch or --status. Unless you name them, the command
    says how many there are and asks. Each job gets new tries and as much time as it had at first.
    What earlier attempts cost stays on record.

    The exit code is 1 if a job cannot be retried.

    \b
    Examples:
      headgate retry 0192f3c4-5b6a-7abc
      headgate retry --status failed --code timeout --since 2h
      headgate retry --batch batch_0192...
    """
    from headgate.producer.submit.retry import retry as act
    from headgate.producer.submit.submit import submitter_for

    _require_choice(ids, **chosen)
    with open_session() as at:
        wanted = [*map(whole_job_id, ids)] or _chosen(at, yes, **chosen)
        done = act(at, submitter_for(at), wanted)
    _show(done, as_json)
    return FAILED if done.refused else DONE


def _require_choice(ids: tuple[str, ...], **chosen: Any) -> None:
    by_ids, by_kind = bool(ids), bool(chosen["batch_id"] or chosen["status"])
    narrowed = bool(chosen["code"] or chosen["since"])
    if by_ids == by_kind or (by_ids and narrowed):
        raise click.UsageError("give ids of jobs, or one of --batch and --status")


def _chosen(
    at: Installation, yes: bool, batch_id: str | None, since: str | None, **chosen: Any
) -> list[str]:
    """Return the ids of the chosen jobs; ask first, with their number by error code."""
    from headgate.producer.submit.retry import RetryFilter, choose, counted

    if batch_id is not None:
        batch_id = whole_batch_id(batch_id, "--batch")
        from headgate.producer.batch.rows import BatchRows

        BatchRows(at.engine).get(batch_id)  # raises UnknownBatch
    moment = None if since is None else parse_moment(since)
    found = choose(at.engine, RetryFilter(batch_id, since=moment, **chosen))
    if not found:
        print_note("no such job has failed; nothing to retry")
    elif not yes:
        jobs = "1 job" if len(found) == 1 else f"{len(found)} jobs"
        confirm(f"Retry {jobs} ({', '.join(counted(found))})?")
    return list(found)


def _show(done: Retried, as_json: bool) -> None:
    if as_json:
        for job_id in done.queued:
            print_json({"id": job_id, "state": "queued", "message": "is queued again"})
        for job_id, reason in done.refused.items():
            print_json({"id": job_id, "state": "refused", "message": reason})
        return
    if len(done.queued) == 1:
        print_line(f"{done.queued[0]} is queued again")
    elif done.queued:
        print_line(f"{len(done.queued)} jobs are queued again")
    for job_id, reason in list(done.refused.items())[:SHOWN]:
        print_note(f"job {job_id} {reason}")
    if len(done.refused) > SHOWN:
        print_note(f"and {len(done.refused) - SHOWN} more; --json names all")
