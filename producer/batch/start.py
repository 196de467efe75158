"""Which batch a command works on: a new one, or the one that it goes on with."""

from __future__ import annotations

from typing import Any

from headgate.producer.batch.input import InputSummary
from headgate.producer.batch.output import Output, path_on_record
from headgate.producer.batch.rows import Batch, BatchRows
from headgate.shared.errors import WrongUse


def begin(
    record: BatchRows, survey: InputSummary, output: Output, defaults: dict[str, Any]
) -> tuple[Batch, dict[int, bool]]:
    """A new batch on record, with nothing of it written or queued yet."""
    return record.create(survey, path_on_record(output.path), defaults), {}


def resume(
    record: BatchRows, survey: InputSummary, output: Output, defaults: dict[str, Any]
) -> tuple[Batch, dict[int, bool]]:
    """The batch that last wrote to this output, and which lines stand there already.

    A new one where there is none, so that a script may always say --resume. Raises WrongUse where
    going on would mix two inputs or two kinds of answers.
    """
    path = str(output.path)
    batch = record.last_with_output(path_on_record(output.path))
    if batch is None:
        if not output.empty:
            raise WrongUse("output", path, "holds something, but no batch on record wrote to it")
        return begin(record, survey, output, defaults)
    if batch.input_sha256 != survey.sha256:
        remedy = (
            f"is not what batch {batch.id} was started with: the input has changed since; "
            "name another output, or replace this one with --overwrite"
        )
        raise WrongUse("input", str(survey.path), remedy)
    for name, value in defaults.items():
        if batch.defaults.get(name) != value:
            remedy = f"batch {batch.id} was started with {batch.defaults.get(name)!r}; leave it out"
            raise WrongUse(f"--{name.replace('_', '-')}", value, remedy)
    return batch, output.written(batch.id)
