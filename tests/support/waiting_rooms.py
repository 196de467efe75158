"""Waiting rooms, buckets and gates as the fetch script leaves them, written by hand."""

from dataclasses import dataclass, replace
from typing import Any

import redis

from headgate.shared.admission.scopes import quoted
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker.keys import Keys
from tests.support.rig import STANDARD

POOL = "openai/gpt-4o-mini"

TICKET = Ticket(
    pool=POOL, model="gpt-4o-mini", priority="standard", tenant="acme", user="", tier="", rule="o",
    input_tokens=100, output_tokens=400, arrival_ms=0, deadline_ms=4_000_000_000_000,
)  # fmt: skip


@dataclass(slots=True)
class Rooms:
    """The governor's keys of one installation."""

    client: redis.Redis
    keys: Keys

    def now_ms(self) -> int:
        """The server's clock."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def wait(self, *ids: str, queue: str = STANDARD, age_ms: int = 0, **fields: Any) -> None:
        """These jobs wait in a room, in this order, arrived `age_ms` ago."""
        arrival_ms = self.now_ms() - age_ms
        ticket = replace(TICKET, arrival_ms=arrival_ms, **fields)
        pool, tenant, user = ticket.pool, quoted(ticket.tenant), quoted(ticket.user)
        text = ticket.encode()
        for n, job_id in enumerate(ids):
            message = f'{{"hg":"{job_id}","at":"{text}","body":"x"}}'
            self.client.hset(self.keys.messages(), job_id, f"{queue}\n{message}")
            self.client.sadd(self.keys.present(), job_id)
            line = self.keys.user_queue(queue, pool, tenant, user)
            self.client.zadd(line, {f"{job_id}|{text}": arrival_ms + n})
        self.client.hincrby(self.keys.waiting_queues(), f"{queue} {pool}", len(ids))
        ages = {f"{tenant}|{user}": arrival_ms}
        self.client.zadd(self.keys.waiting_queue(queue, pool, "ages"), ages, lt=True)
        self.client.zadd(self.keys.waiting_queue(queue, pool, "tenants"), {tenant: 0})
        self.client.zadd(self.keys.users(queue, pool, tenant), {user: 0})

    def staff(self, *queues: str, providers: str | None = "openai anthropic") -> None:
        """A worker lives for an hour; without names it serves every queue, as one of release 0.1.

        `providers` None: it does not say of which it has keys.
        """
        text = "0" if not queues else "0\n" + " ".join(queues)
        if queues and providers is not None:
            text += f"\n{providers}"
        hour_ms = 3_600_000
        self.client.set(self.keys.worker("played"), text, px=hour_ms)
        self.client.zadd(self.keys.workers(), {"played": self.now_ms() + hour_ms})

    def limit(self, scope: str, text: str) -> None:
        """The catalog limits this scope."""
        self.client.hset(self.keys.limits(), scope, text)

    def fill(self, scope: str, key: str = "", *, running: int = 0, **levels: float) -> None:
        """The bucket of a scope has these levels now."""
        now = self.now_ms()
        fields: dict[str, float] = {"running": running}
        for measure, level in levels.items():
            fields |= {f"{measure}.level": level, f"{measure}.at": now}
        self.client.hset(self.keys.bucket(scope, key), mapping=fields)  # type: ignore[arg-type]

    def shut(self, for_ms: int, why: str, pool: str = POOL, key: str = "key0") -> None:
        """The gate of a pool is shut."""
        until = self.now_ms() + for_ms
        self.client.hset(self.keys.gate(pool, key), mapping={"until": until, "why": why})

    def park(self, member: str, at: float, queue: str = STANDARD, pool: str = POOL) -> None:
        """A tenant or a user takes no part in the turns until then."""
        self.client.zadd(self.keys.waiting_queue(queue, pool, "parked"), {member: at})
