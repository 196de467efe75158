"""A batch's summary in words."""

from __future__ import annotations

from collections.abc import Iterator

from headgate.producer.batch.summary import PoolUse, Summary


def words(summary: Summary) -> Iterator[tuple[str, str]]:
    """Name and value of each line that a reader sees."""
    s = summary
    yield "succeeded", f"{s.succeeded} of {s.lines}"
    failures = dict(s.failures)
    if s.bad_lines:
        failures["refused lines"] = s.bad_lines
    causes = ", ".join(f"{n} {code}" for code, n in sorted(failures.items()))
    yield "failed", f"{s.failed} ({causes})" if causes else str(s.failed)
    if s.open:
        yield "still open", str(s.open)
    yield "cached", str(s.cached)
    yield "shared", str(s.shared)
    yield "fallbacks", str(s.fallbacks)
    yield "retries", str(s.retries)
    if s.unknown_attempts:
        yield "attempts with an unknown bill", str(s.unknown_attempts)
    yield "tokens", f"{s.input_tokens} in, {s.output_tokens} out"
    unpriced = f" (and {s.unpriced_attempts} answers without a known price)"
    yield "cost", f"{s.cost_usd} USD" + (unpriced if s.unpriced_attempts else "")
    yield "latency", f"p50 {_ms(s.p50_latency_ms)}, p95 {_ms(s.p95_latency_ms)}"
    yield "time", f"{s.seconds:.1f} s"
    yield from _shares(s.pools)
    yield "provider refusals", str(s.refusals)


def _ms(value: int | None) -> str:
    return "-" if value is None else f"{value} ms"


def _shares(pools: list[PoolUse]) -> Iterator[tuple[str, str]]:
    limited = [use for use in pools if (use.requests_share, use.tokens_share) != (None, None)]
    if not limited:
        yield "share of the rate limit used", "no limit set"
    for use in limited:
        given = (("requests", use.requests_share), ("tokens", use.tokens_share))
        shares = (f"{share:.0%} of {kind}" for kind, share in given if share is not None)
        yield "share of the rate limit used", f"{', '.join(shares)} ({use.pool})"
