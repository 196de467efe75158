"""The health of an installation: models and breakers, pools and gates, servers, workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from headgate.producer.admin.limits_report import report
from headgate.producer.admin.limits_rows import GateRow
from headgate.producer.admin.space import Space, space_of
from headgate.producer.installation import Installation
from headgate.producer.waits.find import living_workers
from headgate.shared.admission import breakers
from headgate.shared.admission.breakers import ModelHealth, close
from headgate.shared.admission.limits import resume_command
from headgate.shared.broker.queues import all_queues
from headgate.shared.broker.script import run, text_of
from headgate.shared.broker.unserved import queue_loads
from headgate.shared.catalog.faults import hint
from headgate.shared.database.engine import reading
from headgate.shared.errors import InvalidRequest, WrongUse
from headgate.shared.job.ids import rfc3339


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The health of an installation whose servers answer.

    `models`: those with a call in the last 24 h. `not_asked`: how many other models the catalog
    has. `gates`: those that are shut or slow a pool down. `servers`: name to `answers`; for a
    server that does not answer there is no report. `workers`: how many run. `strays`: workers that
    ended in the last hour because they had lost their database, each with the reason. `space`:
    the room that the servers have left. `unserved`: the waiting jobs of queues without a worker.
    `calls_since` and `calls_until`: the minute whose calls `models` counts (RFC 3339 in UTC, by the
    clock of Redis).
    """

    models: Sequence[ModelHealth]
    not_asked: int
    gates: Sequence[GateRow]
    servers: dict[str, str]
    workers: int
    space: Space
    strays: dict[str, str] = field(default_factory=dict)
    unserved: dict[str, int] = field(default_factory=dict)
    calls_since: str | None = None
    calls_until: str | None = None

    @property
    def down(self) -> list[str]:
        """What is down, one text each."""
        found = [
            f"{one.model} ({one.key}): {_why_down(one)}"
            for one in self.models
            if one.state == "down"
        ]
        found += [] if self.workers else ["no worker answers"]
        found += [
            f"queue {queue}: {n} job{'s wait' if n > 1 else ' waits'}, and no worker serves it"
            for queue, n in self.unserved.items()
        ]
        return found + self.space.faults

    def as_json(self) -> dict[str, Any]:
        """Return the report as `headgate health --json` prints it."""
        return {
            "down": self.down,
            "models": [asdict(one) for one in self.models],
            "calls_since": self.calls_since,
            "calls_until": self.calls_until,
            "models_not_asked": self.not_asked,
            "gates": [asdict(one) for one in self.gates],
            "servers": self.servers,
            "workers": self.workers,
            "strays": self.strays,
            "queues_without_worker": self.unserved,
            **self.space.as_json(),
        }


def check(at: Installation) -> HealthReport:
    """Return the health of the installation.

    Raises Unreachable if a server does not answer, or if a SQLite file was deleted or replaced.
    Raises SettingError if Redis belongs to another database by now.
    """
    with reading(at.engine) as connection:
        connection.exec_driver_sql("SELECT 1")
    at.version_in_force()
    models = breakers.states(at.redis, at.keys)
    since_ms, until_ms = breakers.window_of(breakers.server_ms(at.redis))
    asked = {one.model for one in models}
    known = {f"{model.provider}/{model.name}" for model in at.catalog.models.values()}
    workers = living_workers(at.redis, at.keys)
    loads = run(at.redis, queue_loads(at.keys, all_queues(at.catalog.classes)))
    return HealthReport(
        models, len(known - asked), report(at).gates,
        {at.redis_name: "answers", at.database_name: "answers"},
        workers, space_of(at), dict(_strays(at)),
        # A worker of the release before is counted and does not say what it serves.
        {} if workers > len(loads.workers) else loads.unserved,
        rfc3339(since_ms), rfc3339(until_ms),
    )  # fmt: skip


def _why_down(model: ModelHealth) -> str:
    return f"{model.why}; the last fault: {model.fault}" if model.fault else model.why


def resume_model(at: Installation, name: str) -> int:
    """Close the model's breakers on all keys; return how many were open. Raise WrongUse."""
    asked = {text_of(one).rpartition("#")[0] for one in _asked(at)}
    wanted = {one for one in asked if name in (one, one.partition("/")[2])}
    if not wanted:
        try:
            at.catalog.model(name)
        except InvalidRequest:
            known = {*asked, *at.catalog.models}
            raise WrongUse("NAME", name, "no such model" + hint(name, known, "; ")) from None
        return 0
    closed = sum(
        close(at.redis, at.keys, one, text_of(place).rpartition("#")[2])
        for one in wanted
        for place in _asked(at)
        if text_of(place).rpartition("#")[0] == one
    )
    run(at.redis, resume_command(at.keys))
    return closed


def _strays(at: Installation) -> Iterator[tuple[str, str]]:
    found: Any = at.redis.hgetall(at.keys.strays())
    for worker, note in sorted(found.items()):
        at_ms, _, why = text_of(note).partition(" ")
        yield text_of(worker), f"ended at {rfc3339(int(at_ms))}: {why}"


def _asked(at: Installation) -> Any:
    return at.redis.zrange(at.keys.breakers(), 0, -1)
