"""Buckets as providers really keep them: their depth, their kind, and what their headers tell."""

from __future__ import annotations

import itertools

from headgate.workers.simulator.rate_headers import HeaderStyle
from tests.bench.governor.load import Span
from tests.bench.table import Table
from tests.support.servers import ValkeyServer, short_folder
from tests.support.virtual_fleet import Measured, Provider, measured

COLUMNS = (
    "", "of an omniscient sender", "refused per 100 accepted", "refused before",
    "without headers", "refused per 100 accepted",
)  # fmt: skip

RPM = {1: 6_000, 10: 1_200, 60: 600}
"""Requests a minute by seconds of depth: a bucket of one second must hold some requests."""

HEADERS: tuple[HeaderStyle, ...] = ("bucket", "none")

SHARE = {1: 0.5, 10: 1.0, 60: 2.0}
"""How long a row is measured, as a share of the time asked for."""


def depths(span: Span) -> Table:
    """By depth, by kind of window and by dialect: with headers of the bucket, and without any."""
    found = Table(f"buckets of their own depth, {span.seconds:g} s each", COLUMNS)
    for dialect, depth_s, fixed in itertools.product(
        ("openai", "anthropic"), (1, 10, 60), (False, True)
    ):
        kind = "fixed windows" if fixed else "continuous"
        told, untold = (
            _row(Provider(dialect, depth_s, fixed, headers, RPM[depth_s]), span)
            for headers in HEADERS
        )
        found.add(
            f"{dialect}, {depth_s} s, {kind}",
            f"{told.share:.1%}", f"{told.refused_per_100:.2f}", str(told.before),
            f"{untold.share:.1%}", f"{untold.refused_per_100:.2f}",
        )  # fmt: skip
    found.note = (
        "Four workers on a computed clock (tests/support/virtual_fleet.py): the real scripts, the"
        " simulator's engine, latencies and delays drawn by chance."
    )
    return found


def _row(provider: Provider, span: Span) -> Measured:
    """Whole windows, after whole windows."""
    depth_s = provider.depth_s
    settle_s = max(span.settle_s * SHARE[int(depth_s)], 20.0)
    settle_s, seconds = (
        max(1, round(s / depth_s)) * depth_s for s in (settle_s, span.seconds * SHARE[int(depth_s)])
    )
    with (
        short_folder() as folder,
        ValkeyServer(folder) as server,
        server.client(decode_responses=False) as client,
    ):
        return measured(client, provider, settle_s=settle_s, seconds=seconds)
