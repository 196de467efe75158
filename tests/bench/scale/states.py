"""How the state of each row is made: queued jobs, tenants, waiting jobs, models, old records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from headgate import Client
from headgate.shared.broker.keys import Keys
from headgate.shared.database.engine import open_engine, writing
from headgate.shared.job.ids import now_ms
from tests.bench.rig import Rig, run_child
from tests.support.child import wait_until

MODEL, SHUT, POOL, SHUT_POOL = "gpt-4o-mini", "gpt-4o", "openai/gpt-4o-mini", "openai/gpt-4o"
SLICE, LEAST = 10_000, 20_000

_NUMBERS = "WITH RECURSIVE c(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM c WHERE n < :last)"

_OLD_RECORDS = (
    """ INSERT INTO jobs (id, status, priority, model_class, model, tenant, submitted_at_ms,
    deadline_at_ms, finished_at_ms) SELECT 'old-' || n, 'succeeded', 'standard', 'fast',
    'gpt-4o-mini', 'default', :at_ms + n % 3600000, :at_ms, :at_ms + n % 3600000 FROM c""",
    """ INSERT INTO audit (job_id, status, priority, tenant, model, fallback, attempts,
    unknown_attempts, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens,
    reasoning_tokens, submitted_at_ms, finished_at_ms) SELECT 'old-' || n, 'succeeded', 'standard',
    'default', 'gpt-4o-mini', false, 1, 0, 80, 0, 0, 50, 0, :at_ms, :at_ms + n % 3600000 FROM c""",
)
"""Of the last hour, so that no day of them is to be summed and none is old enough to be pruned."""

HOUR_MS = 3_600_000

_CHECKED = 'source = "made up"\nchecked = 2026-11-30\n'


def submit(bench: Rig, client: Client, jobs: int, **fields: Any) -> None:
    """So many jobs are queued."""
    for first in range(0, jobs, SLICE):
        client.submit_many(bench.requests(min(SLICE, jobs - first), **fields))


def queued(bench: Rig, client: Client, n: int) -> None:
    """This many jobs are in their queue."""
    submit(bench, client, n, priority="bulk")
    bench.start_worker()


def tenants(bench: Rig, client: Client, n: int) -> None:
    """This many tenants have a backlog, and their jobs stand in line for the pool."""
    run_child(bench, "headgate", "pause", "pool", POOL)
    for first in range(0, LEAST, SLICE):
        found = bench.requests(SLICE, priority="bulk")
        client.submit_many(one | {"tenant": f"t{(first + i) % n}"} for i, one in enumerate(found))
    bench.start_worker()
    wait_until(lambda: in_line(bench) == LEAST, 600, "the jobs to stand in line")
    run_child(bench, "headgate", "resume", "pool", POOL)


def shut(bench: Rig, client: Client, n: int) -> None:
    """This many jobs wait for a pool that is paused."""
    run_child(bench, "headgate", "pause", "pool", SHUT_POOL)
    submit(bench, client, n, model=SHUT, fallback=False)
    bench.start_worker()
    wait_until(lambda: in_line(bench) == n, 600, "the jobs to wait for their pool")


def models(bench: Rig, client: Client, n: int) -> None:
    """Jobs of this many models, each with a pool of its own, stand in their queue."""
    for first in range(0, LEAST, SLICE):
        found = bench.requests(SLICE, priority="bulk", fallback=False)
        client.submit_many(one | {"model": f"m{(first + i) % n}"} for i, one in enumerate(found))
    bench.start_worker()


def models_toml(n: int) -> str:
    """A catalog of this many models more, each with a pool and a limit of its own."""
    return "".join(
        f'[models."m{i}"]\nprovider = "openai"\nclass = "fast"\nmax_output_tokens = 16384\n'
        f'context_tokens = 128000\n{_CHECKED}[pools."openai/m{i}"]\nrpm = 600000\n'
        f'[prices."m{i}"]\ninput = "0.15"\noutput = "0.60"\n'
        for i in range(n)
    )


def old_records(bench: Rig, _client: Client, n: int) -> None:
    """This many jobs have ended: a row each of `jobs`, and a line of the audit."""
    engine = open_engine(bench.database_url, 900.0)
    at_ms = now_ms() - HOUR_MS
    for first in range(0, n, 500_000):
        values = {"first": first, "last": min(first + 500_000, n) - 1, "at_ms": at_ms}
        with writing(engine) as connection:
            for words in _OLD_RECORDS:
                connection.execute(text(_NUMBERS + words), values)
    engine.dispose()
    bench.start_worker()


def in_line(bench: Rig) -> int:
    """How many jobs stand in waiting queues."""
    with bench.client() as client:
        found: Any = client.hgetall(Keys().waiting_queues())
        return sum(map(int, found.values()))
