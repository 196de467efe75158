"""Chooses the batch that a command works on: a new one, or one to continue."""

from __future__ import annotations

from typing import Any

from headgate.producer.batch.input import InputSummary
from headgate.producer.batch.output import Output, path_on_record
from headgate.producer.batch.rows import Batch, BatchRows
from headgate.producer.submit.fields import NO_CACHE
from headgate.shared.errors import WrongUse

_OPTIONS = {"deadline_s": "--deadline", "params": "--set params"}
"""The options whose names are not those of their fields."""


def begin(
    record: BatchRows, summary: InputSummary, output: Output, defaults: dict[str, Any]
) -> tuple[Batch, dict[int, bool]]:
    """Create a new batch; return it, and no written lines."""
    return record.create(summary, path_on_record(output.path), defaults), {}


def resume(
    record: BatchRows, summary: InputSummary, output: Output, defaults: dict[str, Any]
) -> tuple[Batch, dict[int, bool]]:
    """Return the batch that last wrote to this output, and the lines already written.

    Create a new batch if there is none, so that scripts can always use --resume. Raise WrongUse
    if the input or the defaults differ from those of the batch.
    """
    path = str(output.path)
    batch = record.last_with_output(path_on_record(output.path))
    if batch is None:
        if not output.empty:
            remedy = "has content, but no batch on record wrote to it; name another output"
            raise WrongUse("output", path, remedy)
        return begin(record, summary, output, defaults)
    if batch.input_sha256 != summary.sha256:
        remedy = (
            f"the input has changed since batch {batch.id} was started; "
            "name another output, or replace this one with --overwrite"
        )
        raise WrongUse("input", str(summary.path), remedy)
    for name, value in defaults.items():
        before = batch.defaults.get(name)
        if before == value:
            continue
        if name in NO_CACHE and NO_CACHE.items() <= defaults.items():
            raise WrongUse("--no-cache", True, f"batch {batch.id} was started without it; omit it")
        remedy = f"batch {batch.id} was started with {before!r}; omit it"
        option = _OPTIONS.get(name) or f"--{name.replace('_', '-')}"
        raise WrongUse(option, value, remedy)
    return batch, output.read_written(batch.id)
