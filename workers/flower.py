"""Flower for Headgate: only with a login, without answers, with our own queues, and read-only.

    python -m headgate.workers.flower [--address A] [--port P] [--control]

It differs from stock Flower where that shows too much or too little. `/metrics` asks for the login
too. `/api/task/result` is shut, because Celery's result record holds the answer. The broker page
counts the queues for every form of URL, and the jobs that workers hold by leases. What changes
workers is refused without `--control`. FLOWER_BASIC_AUTH holds the logins, FLOWER_* the rest.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

import redis
from celery.events import EventReceiver
from flower import command
from flower.api import BaseApiHandler
from flower.api.tasks import GetQueueLengths
from flower.app import Flower, rewrite_handler
from flower.events import Events
from flower.options import options
from flower.urls import settings as pages
from flower.views import BaseHandler
from flower.views.broker import BrokerView
from flower.views.monitor import Metrics
from kombu.exceptions import OperationalError
from tornado import web
from tornado.ioloop import IOLoop

from headgate.shared import settings
from headgate.shared.broker.queues import lists_of
from headgate.shared.catalog import catalog
from headgate.shared.servers.servers import Servers, open_servers
from headgate.shared.settings import masked
from headgate.workers.app import Headgate

log = logging.getLogger("headgate.flower")

RECONNECT_S = 1.0
"""Pause between two tries to reach the broker. Flower's own doubles without a limit."""


class Queues:
    """Counts the messages of all queues, on any Redis that Headgate itself can use."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def queues(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return a row for each queue, then for dead letters, jobs held by workers, deferred jobs.

        A queue counts the messages in its lists, and those in the waiting queues of its pools.
        """
        keys = self._servers.keys
        client = self._servers.async_redis_client()
        try:
            async with client.pipeline(transaction=False) as calls:
                lists = [(name, key) for name in names for key in lists_of(keys, name)]
                for _, key in lists:
                    calls.llen(key)
                calls.llen(keys.dead())
                calls.zcard(keys.leases())
                calls.zcard(keys.due())
                calls.hgetall(keys.waiting_queues())
                *listed, dead, leased, deferred, by_pool = await calls.execute()
        finally:
            await client.aclose()
        waiting = Counter(dict.fromkeys(names, 0))
        for (name, _), count in zip(lists, listed, strict=True):
            waiting[name] += count
        for queue_and_pool, count in by_pool.items():
            waiting[queue_and_pool.decode("utf-8", "replace").split(" ", 1)[0]] += int(count)
        rows = [
            {"name": name, "messages": count, "messages_ready": count}
            for name, count in [*waiting.items(), ("headgate.dead", dead)]
        ]
        rows.append(
            {"name": "(held by workers)", "messages": leased, "messages_unacknowledged": leased}
        )
        return [*rows, {"name": "(deferred)", "messages": deferred}]


class _OurQueues(BaseHandler):  # type: ignore[misc]  # Flower has no types
    """Shows all of our queues on a page, served or not."""

    def get_broker(self) -> Queues:
        return Queues(self.capp.servers)

    def get_active_queue_names(self) -> list[str]:
        others = set(super().get_active_queue_names()) - set(self.capp.job_queues)
        return [*self.capp.job_queues, *sorted(others)]


class BrokerPage(_OurQueues, BrokerView):  # type: ignore[misc]
    """`/broker`."""


class Lengths(_OurQueues, GetQueueLengths):  # type: ignore[misc]
    """`/api/queues/length`."""

    @web.authenticated
    async def get(self) -> None:
        try:
            await super().get()
        except redis.RedisError as error:
            raise web.HTTPError(503, "Redis does not answer") from error


class OwnMetrics(Metrics):  # type: ignore[misc]
    """`/metrics`, only with the login: it names workers and tasks."""

    @web.authenticated
    async def get(self) -> None:
        await super().get()


class NoAnswers(BaseApiHandler):  # type: ignore[misc]
    """`/api/task/result`, shut: a model's answer is only for its caller."""

    @web.authenticated
    def get(self, _job_id: str) -> NoReturn:
        raise web.HTTPError(403, "answers are not shown here; use: headgate result ID")


class Listener(Events):  # type: ignore[misc]
    """Receives Celery's events. Logs a lost broker once and reconnects soon."""

    def run(self) -> None:
        """Hand events to Flower for ever."""
        is_lost = False
        while True:
            try:
                with self.capp.connection_for_read() as connection:
                    connection.connect()
                    if is_lost:
                        log.warning("the broker answers again")
                    is_lost = False
                    receiver = EventReceiver(
                        connection, handlers={"*": self.on_event}, app=self.capp
                    )
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:
                if not is_lost:
                    log.warning("no events: %s; trying until the broker answers", error)
                is_lost = True
                time.sleep(RECONNECT_S)

    async def on_enable_events(self) -> None:
        """Ask workers for events. If the broker does not answer, `run` logs it."""
        try:
            await self.io_loop.run_in_executor(None, self.capp.control.enable_events)
        except (OperationalError, redis.RedisError, OSError) as error:
            log.debug("could not ask for events: %s", error)


class Monitor(Flower):  # type: ignore[misc]
    """Flower with our own pages in place of some of its own."""

    def __init__(self, app: Headgate) -> None:
        loop = IOLoop.current()
        events = Listener(
            app,
            loop,
            db=options.db,
            persistent=options.persistent,
            state_save_interval=options.state_save_interval,
            enable_events=options.enable_events,
            max_workers_in_memory=options.max_workers,
            max_tasks_in_memory=options.max_tasks,
        )
        super().__init__(capp=app, options=options, io_loop=loop, events=events, **pages)
        ours: list[Any] = [
            web.url(r"/broker", BrokerPage, name="broker"),
            (r"/api/queues/length", Lengths),
            (r"/api/task/result/(.+)", NoAnswers),
            (r"/metrics", OwnMetrics),
        ]
        if options.url_prefix:
            ours = [rewrite_handler(rule, options.url_prefix) for rule in ours]
        self.add_handlers(".*", ours)  # tried before Flower's own

    @property
    def broker_uri(self) -> str:
        """The broker's address with its password masked."""
        return masked(self.capp.servers.redis_url)


def make_app() -> Headgate:
    """Build the app that Flower looks at: the worker's, without tasks, database and results."""
    in_force = settings.load()
    models = catalog.load(in_force.catalog)
    app = Headgate(in_force, open_servers(in_force, record=False), models.classes)
    app.conf.update(result_backend=None)
    return app


def main() -> int:
    """Run Flower until SIGTERM or Ctrl-C; return the exit code."""
    parser = argparse.ArgumentParser(prog="headgate flower", allow_abbrev=False)
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5555)
    parser.add_argument("--control", action="store_true")
    given = parser.parse_args()
    command.apply_env_options()
    if not (options.basic_auth or options.auth):
        sys.stderr.write("headgate flower: FLOWER_BASIC_AUTH is not set; give user:password\n")
        return 2
    options.address, options.port, options.read_only = given.address, given.port, not given.control
    command.extract_settings()
    app = make_app()
    logging.basicConfig(
        level=app.settings.log_level, format="[%(asctime)s: %(levelname)s] %(message)s"
    )
    logging.getLogger("tornado.access").setLevel(logging.WARNING)  # log refusals, not each page
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)  # not each worker slow to start
    monitor = Monitor(app)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    monitor.start_http_server()
    try:
        monitor.start()
    except (KeyboardInterrupt, SystemExit):
        monitor.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
