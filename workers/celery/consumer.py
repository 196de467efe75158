"""Celery's consumer. The Fetcher gets the jobs instead of kombu, and there is no gossip.

Jobs go from the Fetcher to the pool and back on the pool's loop. Celery's thread chooses queues,
obeys commands, and sends events and heartbeats. No job waits for it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, cast

from celery import bootsteps, signals
from celery.exceptions import CPendingDeprecationWarning, WorkerShutdown
from celery.worker.consumer import consumer as stock
from celery.worker.consumer.connection import Connection
from celery.worker.consumer.control import Control
from celery.worker.consumer.events import Events
from celery.worker.consumer.heart import Heart
from celery.worker.consumer.tasks import Tasks
from celery.worker.state import maybe_shutdown

from headgate.shared.broker.queues import TASK
from headgate.shared.errors import Unreachable, WrongUse
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.celery import (
    control,  # noqa: F401  # this import registers its commands
    task_state,
)
from headgate.workers.celery.heartbeat import Heartbeat
from headgate.workers.celery.pool import RunnableTask, TaskPool
from headgate.workers.celery.shutdown import (
    EXIT_DONE,
    EXIT_UNREACHABLE,
    EXIT_WRONG_USE,
    Stopping,
)
from headgate.workers.celery.task_events import TaskEvents
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.leases import StopReason
from headgate.workers.delivery.message import Arrival

log = logging.getLogger("headgate.consumer")

RECONNECT_S = 1.0
"""Longest pause between two tries to reach the broker (Celery's own grows to 30 s)."""


class OpenableTask(RunnableTask, Protocol):
    """What the consumer needs of the task that runs the jobs."""

    async def open(self, settings: Settings, servers: Servers, fetcher: Fetcher) -> None:
        """Open what the jobs need. Raises Unreachable, and SettingError for a wrong database."""

    async def close(self) -> None:
        """Close it."""

    async def revoke(self, ids: Sequence[str]) -> None:
        """Cancel those of these jobs that wait."""


class WorkerApp(Protocol):
    """What the consumer needs of the Celery app."""

    settings: Settings
    servers: Servers
    stopping: Stopping
    heartbeat: Heartbeat
    job_queues: list[str]

    @property
    def tasks(self) -> Any:
        """The registered tasks by their names."""

    def open_fetcher(
        self,
        *,
        owner: str,
        slots: int,
        on_arrival: Callable[[list[Arrival]], None],
        on_stop: Callable[[int, StopReason], None],
    ) -> Coroutine[Any, Any, Fetcher]:
        """Open a Fetcher on the running loop."""


class JobConsumer(Tasks):
    """Opens the Fetcher and the job task once; serves while Celery's consumer runs."""

    requires = (Events,)  # without Mingle, which the stock step requires: workers share no state

    def start(self, c: Any) -> None:
        """Let jobs arrive from the queues that Celery consumes from."""
        super().start(c)
        if c.fetcher is None:
            c.open_fetcher()

    def stop(self, c: Any) -> None:
        """Let no new jobs arrive; running jobs go on."""
        c.pause()
        super().stop(c)


class JobControl(Control):
    """The stock step with our mailbox. It requires our JobConsumer instead of the Tasks step."""

    requires = (JobConsumer,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        super().__init__(c, **kwargs)
        self.box = box = task_state.Mailbox(c)
        # The stock step has these as attributes, too.
        self.start, self.stop, self.shutdown = box.start, box.stop, box.shutdown  # type: ignore[method-assign, assignment]


class Consumer(stock.Consumer):
    """`worker_consumer` of the worker app."""

    pool: TaskPool
    hub: Any
    controller: Any
    task_consumer: Any
    event_dispatcher: Any
    first_connection_attempt: bool

    class Blueprint(bootsteps.Blueprint):
        """The steps of the stock consumer without Mingle and Gossip.

        Gossip would have every worker read every other worker's events.
        """

        name = "Consumer"
        default_steps = [  # type: ignore[assignment]  # noqa: RUF012  # a list, as in Celery's own
            Connection,
            Events,
            Heart,
            JobConsumer,
            JobControl,
            stock.Evloop,
        ]

        def info(self, parent: Any) -> dict[str, Any]:
            """Return what `inspect stats` and Flower show, without passwords of the broker."""
            shown: dict[str, Any] = super().info(parent)
            if isinstance(broker := shown.get("broker"), dict):
                hidden = ("alternates", "transport_options")
                shown["broker"] = {k: v for k, v in broker.items() if k not in hidden}
            return shown

        def shutdown(self, parent: Any) -> None:
            """Shut down all steps in turn."""
            self.send_all(parent, "shutdown")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fetcher: Fetcher | None = None
        self._served: list[str] = []
        super().__init__(*args, **kwargs)
        self._app = cast(WorkerApp, self.app)
        self._app.stopping.on_begin(self._on_stopping)
        self._app.stopping.exit_code = self._exit_code
        self._events = TaskEvents(self.pool.loop, self._wake)
        signals.heartbeat_sent.connect(self._before_heartbeat, weak=False)

    def open_fetcher(self) -> None:
        """Open the Fetcher and the job task; both close with the pool."""
        pool = self.pool
        task = cast(OpenableTask, self._app.tasks[TASK])
        fetcher = self.fetcher = pool.call(
            self._app.open_fetcher(
                owner=self.hostname,
                slots=pool.num_processes,
                on_arrival=self._on_arrival,
                on_stop=pool.stop_job,
            )
        )
        fetcher.on_refused = self._events.refused
        pool.at_stop(fetcher.close)
        try:
            pool.call(task.open(self._app.settings, self._app.servers, fetcher))
        except (Unreachable, WrongUse) as error:
            log.critical("%s", error)
            wrong = isinstance(error, WrongUse)
            raise WorkerShutdown(EXIT_WRONG_USE if wrong else EXIT_UNREACHABLE) from None
        pool.at_stop(task.close)
        pool.serve(task, acknowledge=fetcher.ack, events=self._events, hostname=self.hostname)

    def resize(self, slots: int) -> None:
        """Hold up to `slots` jobs at a time from now on. If more are held, they end first."""
        self.pool.resize(slots)
        if self.fetcher is not None:
            self.fetcher.resize(self.pool.num_processes)

    def revoke(self, ids: Sequence[str]) -> None:
        """Cancel those of these jobs that no worker runs."""
        task = cast(OpenableTask, self._app.tasks[TASK])
        self.pool.spawn(task.revoke(ids))

    def _on_arrival(self, arrivals: list[Arrival]) -> None:
        """Start these jobs; on the loop. Return them if the worker has begun to stop."""
        if self._app.stopping.has_begun and self.fetcher is not None:
            tags = [arrival.tag for arrival in arrivals]
            self.pool.spawn(self.fetcher.leases.restore(tags, unsent=True))
        else:
            self.pool.begin(arrivals)

    def pause(self) -> None:
        """Fetch no jobs."""
        if self.fetcher is not None:
            self.fetcher.serve([])
            self._served = []

    def stop(self) -> None:
        """End or return all jobs first: the rest waits for a broker that may not answer."""
        self._app.stopping.may_interrupt = False
        self._app.stopping.begin()
        self.pause()
        self.pool.stop()
        if self._broker_answers():
            self._send_events()
            super().stop()

    def shutdown(self) -> None:
        """End the worker with an exit code that says whether all jobs went back."""
        if self._exit_code():
            self.controller.exitcode = self._exit_code()
        if self._broker_answers():
            super().shutdown()
        self._app.stopping.ignore_signals()

    def _broker_answers(self) -> bool:
        """Return True if Celery may say goodbye to the broker without waiting in vain."""
        return self.fetcher is None or self.fetcher.leases.has_left

    def _exit_code(self) -> int:
        if self._app.stopping.fault_code is not None:
            return self._app.stopping.fault_code
        lapsing = self.fetcher.left_behind if self.fetcher is not None else 0
        return EXIT_UNREACHABLE if lapsing else EXIT_DONE

    def _on_stopping(self) -> None:
        # Runs in a thread of its own: Celery's may wait for the broker or for an event.
        if self.fetcher is not None:
            self.fetcher.serve([])
        self._wake()

    # On every turn of Celery's loop.

    def _wake(self) -> None:
        """Let Celery's loop turn now; for any thread."""
        if self.hub is not None:
            self.hub.call_soon(self._turn)

    def _turn(self) -> None:
        """Send the events that wait, and let the Fetcher serve the queues that are chosen now."""
        self._send_events()
        if self.task_consumer is None or self.fetcher is None:
            return
        if self._app.stopping.has_begun:
            self.pause()
            return
        queues = self._by_priority(self.task_consumer.channel.job_queues)
        if queues != self._served:
            self._served = queues
            self.fetcher.serve(queues)
            self._app.heartbeat.ready()

    def _send_events(self) -> None:
        if self.event_dispatcher is not None:  # else they wait for the next one
            self._events.send(self.event_dispatcher)

    def _before_heartbeat(self, **_: Any) -> None:
        task_state.show(self.pool.jobs, self.pool.begun)

    def _by_priority(self, queues: list[str]) -> list[str]:
        known = {name: place for place, name in enumerate(self._app.job_queues)}
        return sorted(queues, key=lambda name: known.get(name, len(known)))

    def register_with_event_loop(self, hub: Any) -> None:
        """Run `_turn` on every turn of the loop. Celery calls this after each (re)connect."""
        super().register_with_event_loop(hub)
        self._served = []
        hub.on_tick.add(self._turn)

    def on_ready(self) -> None:
        """Forbid interrupts: the loop runs from now on and notices a signal by itself."""
        self._app.stopping.may_interrupt = False
        super().on_ready()

    # Celery's connection comes back soon, and its loss is logged once.

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close Celery's connection; the jobs go on."""
        task_state.forget()
        with warnings.catch_warnings():  # hides Celery's notice that a default may change
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)

    def on_close(self) -> None:
        """Forget what belongs to the connection; no running job does."""
        task_state.forget()
        super().on_close()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect to the broker; try at least once a second until it answers or a signal comes."""
        is_logged = False
        self._app.stopping.may_interrupt = True

        def on_error(error: Exception, _interval: float) -> None:
            nonlocal is_logged
            if not is_logged:
                is_logged = True
                log.warning("broker %s: %s; trying until it answers", conn.as_uri(), error)

        conn.ensure_connection(
            on_error,
            max_retries=None,
            interval_start=0.1,
            interval_step=0.2,
            interval_max=RECONNECT_S,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        return conn
