"""The Celery app of the workers: `celery -A headgate.workers.app worker` starts one."""

from __future__ import annotations

import logging
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from headgate.shared import settings
from headgate.shared.broker.queues import all_queues, queue_name
from headgate.shared.catalog import access, catalog
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.errors import Unfit, Unreachable, WrongUse
from headgate.shared.servers import same_database
from headgate.shared.servers.servers import Servers, open_servers
from headgate.shared.settings import Settings, read
from headgate.workers.celery import config, log_writer
from headgate.workers.celery.heartbeat import Heartbeat
from headgate.workers.celery.shutdown import EXIT_WRONG_USE, Signals, Stopping
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.leases import StopReason
from headgate.workers.delivery.message import Arrival
from headgate.workers.delivery.wakeup import Wakeup

log = logging.getLogger("headgate.app")

CHECK_EVERY_S = 1.0
"""Pause between two looks whether the database answers."""

TRANSPORT = "headgate.workers.celery.transport:Transport"
SENTINEL_TRANSPORT = "headgate.workers.celery.transport:SentinelTransport"

UNREACHABLE = 3
"""Exit code if Redis cannot be worked with; all commands use it."""

# Celery warns about running as root because of pickle, which is never accepted here.
warnings.filterwarnings("ignore", category=SecurityWarning)

# Set by the URL's scheme, not by `broker_transport`: Flower knows only the broker's URL, and kombu
# always takes what stands before `+socket://` for the name of a transport.
TRANSPORT_ALIASES.update(redis=TRANSPORT, rediss=TRANSPORT, sentinel=SENTINEL_TRANSPORT)


class Headgate(Celery):
    """The Celery app, with what its worker needs of this installation."""

    def __init__(
        self, settings: Settings, servers: Servers, model_classes: tuple[str, ...]
    ) -> None:
        super().__init__("headgate", set_as_current=True)
        self.settings = settings
        self.servers = servers
        self.stopping = Stopping(settings.drain_s)
        self.heartbeat = Heartbeat(
            settings.home_path, read("NOTIFY_SOCKET")[0], read("WATCHDOG_USEC")[0]
        )
        self.steps["worker"].add(Signals)
        signals.celeryd_init.connect(self._handle_signals, weak=False)
        for set_up in (signals.after_setup_logger, signals.after_setup_task_logger):
            set_up.connect(self._write_logs, weak=False)
        self.job_queues = all_queues(model_classes)
        self.conf.update(
            **config.settings_for(servers.address, settings.key_prefix, settings.sub_lists),
            broker_connection_retry_on_startup=True,
            task_ignore_result=True,
            task_acks_late=True,
            task_acks_on_failure=True,
            task_acks_on_timeout=True,
            task_serializer="json",
            accept_content=["json"],
            task_queues=[Queue(name, exchange="", routing_key=name) for name in self.job_queues],
            task_default_queue=queue_name("standard", "fast"),
            task_create_missing_queues=True,
            worker_pool="headgate.workers.celery.pool:TaskPool",
            worker_consumer="headgate.workers.celery.consumer:Consumer",
            worker_concurrency=settings.concurrency,
            worker_prefetch_multiplier=1,
            worker_cancel_long_running_tasks_on_connection_loss=False,
            worker_enable_prefetch_count_reduction=False,
            worker_hijack_root_logger=True,
            worker_redirect_stdouts=False,
            timezone="UTC",
        )

    def _handle_signals(self, instance: Any, **_: Any) -> None:
        """Handle signals from now on: this process is a worker of this app."""
        if instance.app is self:
            self.stopping.handle_signals()

    def _write_logs(self, logger: logging.Logger, **_: Any) -> None:
        """Let the log be written apart from the jobs, in the form that the settings name."""
        log_writer.install(logger, self.settings.log_format)

    async def open_fetcher(
        self,
        *,
        owner: str,
        slots: int,
        on_arrival: Callable[[list[Arrival]], None],
        on_stop: Callable[[int, StopReason], None],
    ) -> Fetcher:
        """Open a Fetcher on the running loop, under a new owner's name for each start of a worker.

        A worker that was killed and started again under its old name must not renew old leases.
        """
        return Fetcher(
            self.servers.async_redis_client(),
            Wakeup(self.servers.async_redis_client(timeout_s=None), self.servers.keys),
            self.servers.keys,
            owner=f"{owner}:{uuid.uuid4().hex[:8]}",
            slots=slots,
            lease_ms=int(self.settings.lease_s * 1000),
            max_bytes=self.settings.in_flight_mb * 1024 * 1024,
            on_arrival=on_arrival,
            on_stop=on_stop,
            handicaps_ms=(
                int(self.settings.standard_wait_s * 1000),
                int(self.settings.bulk_wait_s * 1000),
            ),
            result_ttl_s=self.settings.result_ttl_s,
        )


def make_app() -> Headgate:
    """Build the app from the environment; use the embedded Valkey if no Redis is named."""
    in_force = settings.load()
    models = catalog.load(in_force.catalog)
    servers = open_servers(in_force)
    signals.worker_init.connect(lambda **_: _check(in_force, models, servers), weak=False)
    return Headgate(in_force, servers, models.classes)


def _check(in_force: Settings, models: Catalog, servers: Servers) -> None:
    """Wait until the database answers; exit with the reason if waiting cannot help.

    Celery's consumer waits for Redis later.
    """
    try:
        access.check(in_force, models)
        if (outage := _outage_of(servers.check_database)) is not None:
            log.warning("%s; this worker begins when it answers", outage)
            while _outage_of(servers.check_database) is not None:
                time.sleep(CHECK_EVERY_S)
            log.warning("the database answers")
        if _outage_of(lambda: servers.check_redis(to_work=True)) is None:
            with suppress(RedisError, DBAPIError):  # `DatabaseCheck` does it again
                same_database.check(servers)
    except Unfit as error:
        sys.stderr.write(f"headgate: {error}\n")
        raise SystemExit(UNREACHABLE) from error
    except WrongUse as error:
        sys.stderr.write(f"headgate: {error}\n")
        raise SystemExit(EXIT_WRONG_USE) from error


def _outage_of(check: Callable[[], None]) -> Unreachable | None:
    """Return why the server cannot be reached, or None. Raises Unfit if waiting cannot help."""
    try:
        check()
    except Unfit:
        raise
    except Unreachable as error:
        return error
    return None


def __getattr__(name: str) -> Any:
    """Build `app` when Celery asks for it: importing this module opens nothing."""
    if name != "app":
        raise AttributeError(name)
    from headgate.workers import tasks

    app = make_app()
    tasks.register(app)
    globals()["app"] = app
    return app
