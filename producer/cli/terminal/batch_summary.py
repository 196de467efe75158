"""The summary of a batch as people read it: what came of it, why lines failed, what to do next."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headgate.producer.cli.terminal import cells

if TYPE_CHECKING:
    from headgate.producer.batch.summary import PoolUse, Summary

MOST_MODELS = 6
MOST_MESSAGE = 200
"""Characters of an error message that the summary shows."""


def describe(
    summary: Summary, output: str | None = None, bad_example: str | None = None
) -> Iterator[tuple[str, object]]:
    """Yield name and value of each line of the printed summary.

    `output`: the file of the answers, if the command wrote one. `bad_example`: the fault of one of
    the refused lines.
    """
    s = summary
    yield "batch", s.batch_id
    yield "input", _near(s.input_path)
    if output is not None:
        yield "answers", _near(output)
    yield "succeeded", f"{s.succeeded:,} of {s.lines:,}"
    yield from _failures(s, bad_example)
    if s.open:
        yield "still open", f"{s.open:,}"
    if s.models:
        yield "models", _models(s.models)
    yield "cached", f"{s.cached:,}"
    yield "shared", f"{s.shared:,}"
    if equal := s.cached + s.shared:
        yield "equal requests", f"{_lines(equal)} the answer of an equal one; --no-cache asks each"
    yield "fallbacks", f"{s.fallbacks:,}"
    yield "retries", f"{s.retries:,}"
    if s.implausible_usages:
        yield "answers whose usage cannot be true", f"{s.implausible_usages:,}"
    if s.unknown_attempts:
        yield "attempts whose billing is unknown", f"{s.unknown_attempts:,}"
    yield "tokens", f"{s.input_tokens:,} in, {s.output_tokens:,} out"
    unpriced = f" (and {s.unpriced_attempts:,} answers whose price is unknown)"
    yield "cost", cells.dollars(s.cost_usd, unpriced if s.unpriced_attempts else "")
    yield "latency", f"p50 {_ms(s.p50_latency_ms)}, p95 {_ms(s.p95_latency_ms)}"
    yield "time", f"{s.seconds:,.1f} s"
    yield from _shares(s.pools)
    yield "provider refusals", f"{s.refusals:,}"


def next_command(summary: Summary, output: str | None = None) -> str | None:
    """Return the command that helps next; None if there is nothing left to do.

    `output`: the file of the answers, if the command wrote one.
    """
    s, written = summary, output or summary.output_path
    if s.open and s.output_path is not None:
        return f"headgate batch run {_quoted(s.input_path)} -o {_quoted(s.output_path)} --resume"
    if s.open:
        where = "answers.jsonl" if output is None else f"{_quoted(output)} --overwrite"
        return f"headgate batch fetch {s.batch_id} --wait -o {where}"
    if any(one.retryable for one in s.examples.values()):
        if s.output_path is None:
            return f"headgate retry --batch {s.batch_id}"
        run = f"headgate batch run {_quoted(s.input_path)} -o {_quoted(s.output_path)}"
        return f"{run} --retry-failed"
    if s.failures:
        return f"headgate jobs --batch {s.batch_id} --status {_status(s)}"
    if written is None:
        return f"headgate batch fetch {s.batch_id} -o answers.jsonl"
    if s.bad_lines:
        return f"grep '\"response\":null' {_quoted(written)}"
    return None


def _status(summary: Summary) -> str:
    ends = {"cancelled": "cancelled", "deadline": "expired"}
    return next((ends[code] for code in summary.failures if len(summary.failures) == 1
                 and code in ends), "failed")  # fmt: skip


def _failures(summary: Summary, bad_example: str | None) -> Iterator[tuple[str, object]]:
    s = summary
    failures = dict(s.failures)
    if s.bad_lines:
        failures["refused line" if s.bad_lines == 1 else "refused lines"] = s.bad_lines
    causes = ", ".join(f"{n:,} {code}" for code, n in sorted(failures.items()))
    yield "failed", f"{s.failed:,} ({causes})" if causes else f"{s.failed:,}"
    for code, one in s.examples.items():
        name = "" if one.custom_id in (None, f"line-{one.line}") else f" ({one.custom_id})"
        message = one.message or "its message has expired"
        yield f"  {code}", f"line {one.line}{name}: {_cut(message)}"
    if bad_example is not None:
        yield "  refused", _cut(bad_example)


def _models(models: dict[str, int]) -> str:
    named = [f"{model} {n:,}" for model, n in list(models.items())[:MOST_MODELS]]
    rest = len(models) - len(named)
    return ", ".join(named) + (f", and {rest} more" if rest > 0 else "")


def _cut(text: str) -> str:
    return text if len(text) <= MOST_MESSAGE else text[: MOST_MESSAGE - 3] + "..."


def _near(path: str) -> str:
    """Return the path from the current folder if it lies there, else the whole path."""
    return path.removeprefix(f"{Path.cwd()}{os.sep}")


def _quoted(path: str) -> str:
    return shlex.quote(_near(path))


def _lines(count: int) -> str:
    return "1 line got" if count == 1 else f"{count:,} lines got"


def _ms(value: int | None) -> str:
    return "-" if value is None else f"{value:,} ms"


def _shares(pools: list[PoolUse]) -> Iterator[tuple[str, str]]:
    limited = [use for use in pools if (use.requests_share, use.tokens_share) != (None, None)]
    if not limited:
        yield "share of the rate limit used", "no limit set"
    for use in limited:
        given = (("requests", use.requests_share), ("tokens", use.tokens_share))
        shares = (f"{share:.0%} of {kind}" for kind, share in given if share is not None)
        yield "share of the rate limit used", f"{', '.join(shares)} ({use.pool})"
