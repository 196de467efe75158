"""The real worker app, and a producer, that stop at a named step when they are ordered to.

`celery -A tests.support.crash worker` is `headgate.workers.app` with steps around every stage of
the pipeline and around the commands to the broker. They are wrapped from outside: the product has
no fault points. The file named by `CRASH_ORDERS` holds one order, `STEP COUNT ACT`. A test may
write, change or remove it at any time. At the COUNT-th passing of the step since then the process

    kill        ends itself by SIGKILL
    freeze      stops itself by SIGSTOP, until somebody sends SIGCONT
    block:S     holds up its event loop for S seconds, as a CPU hog in it would

`CRASH_CLOCK_MS` shifts the wall clock of the process. `python -m tests.support.crash COUNT [KEY]`
submits that many jobs, with the steps of a producer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import event

from headgate.producer.installation import open_installation
from headgate.producer.submit.enqueue import enqueue
from headgate.producer.submit.submit import submitter_for
from headgate.shared.admission.grant import Held
from headgate.shared.broker import jobs, script
from headgate.shared.broker.keys import Keys
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers import app as workers_app
from headgate.workers import tasks
from headgate.workers.delivery.fetcher import Fetcher
from tests.support.stages import stage_of, with_stages

ON_THE_WIRE_S = 0.03
"""A request has left this long after its call began, and the provider is slower than that."""

BEFORE = {"arrived": ("claims", "take"), "held": ("ledger", "open")}
AFTER = {
    "claimed": ("claims", "take"),
    "recalled": ("cache", "recall"),
    "reserved": ("hold", "reserve"),
    "opened": ("ledger", "open"),
    "answered": ("call", "ask"),
    "settled": ("ledger", "settle"),
    "adjusted": ("hold", "settle"),
    "concluded": ("record", "together"),
    "published": ("publish", "publish"),
    "called_back": ("callbacks", "send"),
    "called_back_on_record": ("callbacks", "sent"),
    "deferred": ("claims", "defer"),
    "released": ("claims", "release"),
}
"""Step to the stage of the pipeline and the act that it follows (or comes before)."""

REFUSED, CALLED = "refused", "called"
"""The provider has answered with an error; the request has left and no answer has come."""

BROKER = {
    "fetch": ("taking", "taken"),
    "defer": ("parking", "parked"),
    "restore": ("restoring", "restored"),
    "renew": ("renewing", "renewed"),
    "send": ("sending", "sent"),
}
"""Script to the steps before it is sent, and after the server ran it and before its reply counts.

A fetch counts only when it brings jobs; one that carries acks has steps of its own.
"""
ACKS = ("acknowledging", "acknowledged")


class Orders:
    """What to do where, as the test has last written it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._order = ""
        self._left = 0

    def passes(self, step: str) -> None:
        """Obey the order for this step, if there is one and it is due."""
        try:
            order = self._path.read_text()
        except FileNotFoundError:
            return
        named, count, act = order.split() if order else ("", "0", "")
        if named != step:
            return
        if order != self._order:
            self._order, self._left = order, int(count)
        self._left -= 1
        if self._left != 0:
            return
        match act.partition(":"):
            case ["kill", *_]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["freeze", *_]:
                os.kill(os.getpid(), signal.SIGSTOP)
            case ["block", _, seconds]:
                time.sleep(float(seconds))


Act = Callable[..., Awaitable[Any]]


@dataclass(slots=True)
class Stage:
    """A stage with steps around some of its acts; all else is the stage's own."""

    stage: Any
    acts: dict[str, Act]

    def __getattr__(self, name: str) -> Any:
        return self.acts.get(name) or getattr(self.stage, name)


def stepping(pipeline: Any, passes: Callable[[str], None]) -> Any:
    """Return the pipeline with all steps; raise if it lacks an act that a step belongs to."""
    acts: dict[str, dict[str, Act]] = {}
    for names, wrap in ((AFTER, _after), (BEFORE, _before)):
        for step, (field, name) in names.items():
            of_stage = acts.setdefault(field, {})
            act = of_stage.get(name) or getattr(stage_of(pipeline, field), name)
            of_stage[name] = wrap(act, step, passes)
    acts["call"]["ask"] = _during(acts["call"]["ask"], passes)
    stages = {field: Stage(stage_of(pipeline, field), acts[field]) for field in acts}
    return with_stages(pipeline, **stages)


def _after(act: Act, step: str, passes: Callable[[str], None]) -> Act:
    async def passing(*args: Any, **named: Any) -> Any:
        answer = await act(*args, **named)
        if step != "reserved" or isinstance(answer, Held):
            passes(step)
        return answer

    return passing


def _before(act: Act, step: str, passes: Callable[[str], None]) -> Act:
    async def passing(*args: Any, **named: Any) -> Any:
        passes(step)
        return await act(*args, **named)

    return passing


def _during(ask: Act, passes: Callable[[str], None]) -> Act:
    async def passing(*args: Any, **named: Any) -> Any:
        timer = asyncio.get_running_loop().call_later(ON_THE_WIRE_S, passes, CALLED)
        try:
            return await ask(*args, **named)
        except Exception:
            passes(REFUSED)
            raise
        finally:
            timer.cancel()

    return passing


_COMMANDS: dict[str, script.Command[Any]] = {
    "fetch": jobs.fetch(Keys(), owner="", lease_ms=1, want=0, queues=()),
    "defer": jobs.defer(Keys(), lease=jobs.Lease("", ""), wait_ms=1),
    "restore": jobs.restore(Keys(), leases=()),
    "renew": jobs.renew(Keys(), lease_ms=1, leases=()),
    "send": jobs.send(Keys(), "", ()),
}
_NAMES = {word: name for name, of in _COMMANDS.items() for word in (of.sha, of.text)}


def _steps_of(words: tuple[Any, ...]) -> tuple[str, str] | None:
    name = _NAMES.get(words[1]) if words[0] in ("EVALSHA", "EVAL") else None
    if name == "fetch":
        acks = words[3 + int(words[2]) + 6]
        return ACKS if acks else BROKER[name]
    return BROKER[name] if name else None


def on_the_line(client: Any, passes: Callable[[str], None]) -> Any:
    """Return the client, blocking or not, with the steps of the scripts that it sends."""
    execute = client.execute_command

    def done(words: tuple[Any, ...], steps: tuple[str, str], reply: Any) -> Any:
        if steps[1] != "taken" or _COMMANDS["fetch"].read(reply).taken:
            passes(steps[1])
        return reply

    async def execute_later(*words: Any, **named: Any) -> Any:
        steps = _steps_of(words)
        if steps is None:
            return await execute(*words, **named)
        passes(steps[0])
        return done(words, steps, await execute(*words, **named))

    def execute_now(*words: Any, **named: Any) -> Any:
        steps = _steps_of(words)
        if steps is None:
            return execute(*words, **named)
        passes(steps[0])
        return done(words, steps, execute(*words, **named))

    client.execute_command = execute_later if isinstance(client, AsyncRedis) else execute_now
    return client


class Obedient:
    """Servers whose clients know the steps of the broker."""

    def __init__(self, servers: Servers, passes: Callable[[str], None]) -> None:
        self._servers, self._passes = servers, passes

    def redis_client(self) -> Any:
        """Open a blocking client with steps."""
        return on_the_line(self._servers.redis_client(), self._passes)

    def async_redis_client(self, **options: Any) -> Any:
        """Open an asyncio client with steps."""
        return on_the_line(self._servers.async_redis_client(**options), self._passes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._servers, name)


class Door(tasks.JobTask):
    """The door to a pipeline with steps."""

    orders: Orders

    async def open(self, settings: Settings, servers: Servers, fetcher: Fetcher) -> None:
        await super().open(settings, servers, fetcher)
        stepped = stepping(self.parts.pipeline, self.orders.passes)
        self.parts = replace(self.parts, pipeline=stepped)


def shift_clock(ms: int) -> None:
    """Shift the wall clock of this process by `ms`, as a wrong system clock does."""
    time_s, time_ns = time.time, time.time_ns
    time.time = lambda: time_s() + ms / 1000
    time.time_ns = lambda: time_ns() + ms * 1_000_000


def make_app(orders: Orders) -> workers_app.Headgate:
    """Return the app of this environment, with steps."""
    app = workers_app.make_app()
    app.servers = Obedient(app.servers, orders.passes)  # type: ignore[assignment]  # stands in
    door = Door()
    door.orders = orders
    app.register_task(door)
    return app


def submit(count: int, orders: Orders, key: str = "") -> None:
    """So many jobs are on record and queued, unless a step was ordered otherwise.

    `recording` is the step before a commit. `key`: each has an idempotency key that begins so.
    """
    at = open_installation()
    event.listen(at.engine, "commit", lambda _: orders.passes("recording"))
    client = on_the_line(at.redis, orders.passes)
    requests = [{"prompt": f"{n:.>64}", "params": {"max_tokens": 5}} for n in range(count)]
    if key:
        requests = [
            {**fields, "idempotency_key": f"{key} {n}"} for n, fields in enumerate(requests)
        ]
    enqueue(at.engine, client, at.keys, submitter_for(at).prepare_many(requests))
    at.close()


if "CRASH_ORDERS" in os.environ:
    if "CRASH_CLOCK_MS" in os.environ:
        shift_clock(int(os.environ["CRASH_CLOCK_MS"]))
    _orders = Orders(Path(os.environ["CRASH_ORDERS"]))
    if __name__ == "__main__":
        submit(int(sys.argv[1]), _orders, *sys.argv[2:])
    else:
        app = make_app(_orders)
