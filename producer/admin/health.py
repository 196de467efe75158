"""How everything does: models with their breakers, pools with their gates, servers, workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import redis

from headgate.producer.admin.limits_report import report
from headgate.producer.admin.limits_rows import GateRow
from headgate.producer.installation import Installation
from headgate.shared.admission import breakers
from headgate.shared.admission.breakers import ModelHealth, close
from headgate.shared.admission.limits import resume_command
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import run, text_of
from headgate.shared.catalog.faults import hint
from headgate.shared.errors import WrongUse


@dataclass(frozen=True, slots=True)
class HealthReport:
    """`servers`: name to `answers`; those that do not have ended the look before.

    `models`: asked within a day; `not_asked`: how many of the catalog were not. `gates`: those that
    hold something back. `workers`: that live.
    """

    models: Sequence[ModelHealth]
    not_asked: int
    gates: Sequence[GateRow]
    servers: dict[str, str]
    workers: int

    @property
    def down(self) -> list[str]:
        """What is down, in words."""
        found = [
            f"{one.model} ({one.key}): {one.why}" for one in self.models if one.state == "down"
        ]
        return found if self.workers else [*found, "no worker answers"]

    def as_json(self) -> dict[str, Any]:
        """As `headgate health --json` prints it."""
        return {
            "down": self.down,
            "models": [asdict(one) for one in self.models],
            "models_not_asked": self.not_asked,
            "gates": [asdict(one) for one in self.gates],
            "servers": self.servers,
            "workers": self.workers,
        }


def standing(at: Installation) -> HealthReport:
    """How all does now; raises Unreachable for a server that is away."""
    with at.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    models = breakers.states(at.redis, at.keys)
    asked = {one.model for one in models}
    known = {f"{model.provider}/{model.name}" for model in at.catalog.models.values()}
    return HealthReport(
        models, len(known - asked), report(at).gates,
        {at.redis_name: "answers", at.database_name: "answers"},
        living_workers(at.redis, at.keys),
    )  # fmt: skip


def resume_model(at: Installation, name: str) -> int:
    """All may ask the model again, whatever it did; how many of its breakers were open."""
    asked = {text_of(one).rpartition("#")[0] for one in _asked(at)}
    wanted = {one for one in asked if name in (one, one.partition("/")[2])}
    if not wanted:
        known = {*asked, *at.catalog.models}
        if name not in {*known, *(f"{m.provider}/{m.name}" for m in at.catalog.models.values())}:
            raise WrongUse("NAME", name, "no such model" + hint(name, known, "; "))
        return 0
    closed = sum(
        close(at.redis, at.keys, one, text_of(place).rpartition("#")[2])
        for one in wanted
        for place in _asked(at)
        if text_of(place).rpartition("#")[0] == one
    )
    run(at.redis, resume_command(at.keys))
    return closed


def _asked(at: Installation) -> Any:
    return at.redis.zrange(at.keys.breakers(), 0, -1)


def living_workers(client: redis.Redis, keys: Keys) -> int:
    """How many workers have shown life lately; one that was killed counts until its key expires."""
    return sum(1 for _ in client.scan_iter(match=keys.worker("*"), count=5_000))
