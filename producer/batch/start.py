"""Chooses the batch that a command works on: a new one, or one to continue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headgate.producer.batch.corrected import Correction, correct
from headgate.producer.batch.input import InputSummary
from headgate.producer.batch.output import Output, path_on_record
from headgate.producer.batch.rows import Batch, BatchRows
from headgate.producer.installation import Installation
from headgate.producer.submit.fields import NO_CACHE
from headgate.producer.submit.retry import RetryFilter, choose, counted, retry
from headgate.producer.submit.submit import submitter_for
from headgate.shared.errors import WrongUse

_OPTIONS = {"deadline_s": "--deadline", "params": "--set params"}
"""The options whose names are not those of their fields."""


def begin(
    record: BatchRows, summary: InputSummary, output: Output, defaults: dict[str, Any]
) -> tuple[Batch, dict[int, bool]]:
    """Create a new batch; return it, and no written lines."""
    return record.create(summary, path_on_record(output.path), defaults), {}


@dataclass(frozen=True, slots=True)
class Resumed:
    """A batch to go on with; `written`: its lines of output; `notes`: what has changed."""

    batch: Batch
    written: dict[int, bool]
    notes: tuple[str, ...] = ()


def resume(
    at: Installation,
    summary: InputSummary,
    output: Output,
    defaults: dict[str, Any],
    *,
    retry_failed: bool = False,
) -> Resumed:
    """Return the batch that last wrote to this output, and the lines already written.

    Create a new batch if there is none, so that scripts can always use --resume. If the input was
    corrected, only its changed lines are asked. `retry_failed`: queue the jobs of failed lines
    again. Raise WrongUse if the defaults differ from those of the batch.
    """
    record = BatchRows(at.engine)
    batch = record.last_with_output(path_on_record(output.path))
    if batch is None:
        if not output.empty:
            remedy = "has content, but no batch on record wrote to it; name another output"
            raise WrongUse("output", str(output.path), remedy)
        return Resumed(*begin(record, summary, output, defaults))
    _refuse_other_defaults(batch, defaults)
    notes = []
    if batch.input_sha256 == summary.sha256:
        written = output.read_written(batch.id)
    else:
        batch, written, changes = correct(at, batch, summary, output)
        notes.append(_changes_in_words(changes))
    if retry_failed:
        written, note = _retry_failed(at, batch, output, written)
        notes.append(note)
    return Resumed(batch, written, tuple(notes))


def _refuse_other_defaults(batch: Batch, defaults: dict[str, Any]) -> None:
    for name, value in defaults.items():
        before = batch.defaults.get(name)
        if before == value:
            continue
        if name in NO_CACHE and NO_CACHE.items() <= defaults.items():
            raise WrongUse("--no-cache", True, f"batch {batch.id} was started without it; omit it")
        remedy = f"batch {batch.id} was started with {before!r}; omit it"
        option = _OPTIONS.get(name) or f"--{name.replace('_', '-')}"
        raise WrongUse(option, value, remedy)


def _changes_in_words(found: Correction) -> str:
    text = f"the input has changed: {_lines(found.unchanged)} unchanged, {found.asked} to ask"
    if found.aside:
        jobs = "1 job" if len(found.aside) == 1 else f"{len(found.aside)} jobs"
        text += f"; {jobs} of changed or removed lines left the batch and stay on record"
    return text


def _lines(count: int) -> str:
    return "1 line is" if count == 1 else f"{count} lines are"


def _retry_failed(
    at: Installation, batch: Batch, output: Output, written: dict[int, bool]
) -> tuple[dict[int, bool], str]:
    """Remove the error lines from the output and queue their jobs again; return what is written.

    A line that never became a job is tried again, too.
    """
    if batch.cancelled_at_ms is not None:
        raise WrongUse("--retry-failed", batch.id, "this batch was cancelled; submit it anew")
    answered = {place: True for place, is_answer in written.items() if is_answer}
    # The output first: an error line that is missing in it is written again from the record.
    output.keep_only(answered)
    failed = choose(at.engine, RetryFilter(batch.id))
    done = retry(at, submitter_for(at), list(failed))
    codes = {job_id: failed[job_id] for job_id in done.queued}
    note = f"failed jobs queued again: {len(codes)}"
    if codes:
        note += f" ({', '.join(counted(codes))})"
    return answered, note
