"""The verdict on the books: every job ended once, the money adds up, nothing is left behind."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import redis
from sqlalchemy import ColumnElement, Connection, func, select

from headgate.shared.database.engine import reading
from headgate.shared.database.tables import attempts, audit, jobs
from tests.soak.flood import SLICE
from tests.soak.stage import Stage

PICO = Decimal("1e-12")
KEPT = (
    "headgate:pulse", "headgate:wake:", "headgate:limits", "headgate:budgets",
    "headgate:cached", "headgate:cache:counts", "headgate:cache:uses", "headgate:cache:ends",
    "headgate:database", "headgate:results", "headgate:pauses", "_kombu.binding",
)  # fmt: skip
"""Keys that stay without a lifetime: one of each, however many jobs there were."""


def open_jobs(stage: Stage) -> int:
    """How many jobs have not ended."""
    return _count(stage, jobs.c.finished_at_ms.is_(None))


def faults_of_books(stage: Stage, may_be_unknown: int, flood_kills: int) -> list[str]:
    """What is wrong with the record; empty when all is right."""
    promised = stage.journal.read_text().split()
    canary = [line.split() for line in stage.canary_journal.read_text().splitlines()]
    known = {*promised, *(job_id for job_id, _ in canary)}
    with reading(stage.engine) as connection:
        ended = {row[0] for row in connection.execute(select(audit.c.job_id))}
        statuses = _per(connection, jobs.c.status)
        states = _per(connection, attempts.c.state)
        unknown = _per(connection, attempts.c.code, attempts.c.state == "unknown")
        failed = _per(connection, attempts.c.code, attempts.c.state == "failed")
        twice = select(attempts.c.job_id).where(attempts.c.state == "answered")
        twice = twice.group_by(attempts.c.job_id).having(func.count() > 1)
        answered_twice = connection.scalar(select(func.count()).select_from(twice.subquery()))
        ledger = Decimal(connection.scalar(select(func.sum(attempts.c.cost_pico_usd))) or 0)
        audited = Decimal(connection.scalar(select(func.sum(audit.c.cost_pico_usd))) or 0)
    stats = stage.simulator.stats()
    rows, answered = sum(statuses.values()), states.get("answered", 0)
    succeeded, cancels = (
        statuses.get("succeeded", 0),
        sum(took == "cancelled" for _, took in canary),
    )
    least = len(known) + stage.batches.done * stage.batches.lines
    may_be_unknown += cancels
    crashed = unknown.pop(None, 0) + unknown.pop("cancelled", 0)
    cut, broken = unknown.pop("connection", 0), unknown.pop("provider_error", 0)
    struck = stats["faults"]
    in_vain = stats["answered"] - answered
    all_unknown = states.get("unknown", 0)
    asked = sum(states.values()) - failed.get("cancelled", 0)  # those were stopped before that
    price = ledger / answered if answered else Decimal(0)
    checks: list[tuple[bool, str]] = [
        (len(promised) == len(set(promised)), "an id was promised twice"),
        (known <= ended, f"{len(known - ended)} promised jobs never ended"),
        (rows == len(ended), f"{rows} jobs, but {len(ended)} audit lines"),
        (set(statuses) <= {"succeeded", "cancelled"}, f"jobs by status: {statuses}"),
        (rows - succeeded <= cancels, f"{rows - succeeded} jobs cancelled, {cancels} were to be"),
        (0 <= rows - least <= SLICE * flood_kills, f"{rows} jobs, {least} were promised"),
        (not answered_twice, f"{answered_twice} jobs were answered twice on record"),
        (0 <= answered - succeeded <= cancels, f"{succeeded} jobs, {answered} answered attempts"),
        (set(states) <= {"answered", "failed", "unknown"}, f"attempts by state: {states}"),
        (
            crashed <= may_be_unknown,
            f"{crashed} attempts unknown, {may_be_unknown} in flight",
        ),
        (cut <= struck.get("cut", 0), f"{cut} attempts with a cut line: {struck}"),
        (broken <= struck.get("500", 0) + struck.get("503", 0), f"{broken} refused: {struck}"),
        (not unknown, f"attempts unknown for another reason: {unknown}"),
        (0 <= in_vain <= all_unknown, f"{in_vain} answers are on the bill and not on record"),
        (0 <= asked - stats["requests"] <= crashed, f"{asked} attempts, {stats['requests']} asked"),
        (price * PICO * stats["answered"] == Decimal(stats["money"]["billed_usd"]), "the bill"),
        (audited == ledger, f"audit {audited}, ledger {ledger} pico-USD"),
        (not any(took == "lost" for _, took in canary), "the canary waited in vain"),
    ]
    return [words for right, words in checks if not right]


def faults_of_broker(stage: Stage) -> list[str]:
    """What is left on the broker that should not be."""
    keys, found = stage.keys, []
    with stage.redis() as client:
        counted: dict[str, Any] = {
            "leases": client.zcard(keys.leases()),
            "owners": client.hlen(keys.owners()),
            "messages": client.hlen(keys.messages()),
            "due": client.zcard(keys.due()),
            "present": client.scard(keys.present()),
            "crashes": client.hlen(keys.crashes()),
            "rooms": client.hlen(keys.waiting_queues()),
            "tickets": client.hlen(keys.tickets()),
            "holds": client.hlen(keys.holds()),
            "flights": client.hlen(keys.flights()),
            "leaders": client.hlen(keys.leaders()),
            "followers": client.zcard(keys.followers()),
            "dead letters": client.llen(keys.dead()),
        }
        found += [f"{count} {name} are left" for name, count in counted.items() if count]
        for key in _keys_that_stay(client):
            if not key.startswith(KEPT):
                found.append(f"the key {key} has no lifetime")
            elif key.startswith("headgate:wake:") and int(client.llen(key)) > 1:
                found.append(f"{key} holds more than one token")
    return found


def _keys_that_stay(client: redis.Redis) -> list[str]:
    staying: list[str] = []
    cursor = 0
    while True:
        cursor, names = client.scan(cursor, count=1000)
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.ttl(name)
        staying += [str(name) for name, ttl in zip(names, pipe.execute(), strict=True) if ttl == -1]
        if not cursor:
            return staying


def faults_in_logs(stage: Stage) -> list[str]:
    """What workers and producers have said that nobody should read."""
    found = []
    for path in stage.logs:
        text = path.read_text(errors="replace") if path.exists() else ""
        for words in ("Traceback", "fault of Headgate's own", "went wrong"):
            if words in text:
                place = text.index(words)
                found.append(f"{path.name}: {text.count(words)} times:\n"
                             f"{text[max(0, place - 300) : place + 1500]}")  # fmt: skip
                break
    return found


def _count(stage: Stage, where: ColumnElement[bool]) -> int:
    with reading(stage.engine) as connection:
        query = select(func.count()).select_from(jobs).where(where)
        return int(connection.scalar(query) or 0)


def _per(connection: Connection, column: Any, where: ColumnElement[bool] | None = None) -> Any:
    query = select(column, func.count()).group_by(column)
    rows = connection.execute(query if where is None else query.where(where))
    return {name: int(count) for name, count in rows}
