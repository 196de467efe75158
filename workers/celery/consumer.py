"""Celery's consumer. The Fetcher gets the jobs instead of kombu, and there is no gossip.

Arrivals go from the Fetcher's thread to Celery's through an ordered deque. It outlives broker
connections: jobs that arrive while Celery reconnects are delivered afterwards.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol, cast

from celery import bootsteps
from celery.exceptions import CPendingDeprecationWarning, WorkerShutdown
from celery.worker.consumer import consumer as stock
from celery.worker.consumer.connection import Connection
from celery.worker.consumer.control import Control
from celery.worker.consumer.events import Events
from celery.worker.consumer.heart import Heart
from celery.worker.consumer.tasks import Tasks
from celery.worker.state import maybe_shutdown

from headgate.shared.broker.queues import TASK
from headgate.shared.broker.results import GIVEN_UP
from headgate.shared.errors import Unreachable, WrongUse, place_of
from headgate.shared.servers.servers import Servers
from headgate.shared.settings import Settings
from headgate.workers.celery import control  # noqa: F401  # this import registers its commands
from headgate.workers.celery.heartbeat import Heartbeat
from headgate.workers.celery.pool import RETURN_S, TaskPool
from headgate.workers.celery.run_end import REFUSED
from headgate.workers.celery.shutdown import (
    EXIT_DONE,
    EXIT_UNREACHABLE,
    EXIT_WRONG_USE,
    Stopping,
)
from headgate.workers.celery.transport import JobMessage
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.leases import StopReason
from headgate.workers.delivery.message import Arrival
from headgate.workers.delivery.refused import waiter_of

log = logging.getLogger("headgate.consumer")

RECONNECT_S = 1.0
"""Longest pause between two tries to reach the broker (Celery's own grows to 30 s)."""


class OpenableTask(Protocol):
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
        else:
            # Celery has forgotten the jobs that it had not begun when the connection broke. Return
            # them before new jobs come: a new job must not be taken for a forgotten one.
            with suppress(TimeoutError):
                c.give_back(c.fetcher).result(RETURN_S)

    def stop(self, c: Any) -> None:
        """Let no new jobs arrive; running jobs go on."""
        c.pause()
        super().stop(c)


class JobControl(Control):
    """The stock step. It requires our JobConsumer instead of the stock Tasks step."""

    requires = (JobConsumer,)


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
        self._arrivals: deque[Arrival] = deque()
        self._receive: Any = None
        self._served: list[str] = []
        super().__init__(*args, **kwargs)
        self._app = cast(WorkerApp, self.app)
        self._app.stopping.on_begin(self._on_stopping)
        self._app.stopping.exit_code = self._exit_code

    def open_fetcher(self) -> None:
        """Open the Fetcher and the job task; both close with the pool."""
        pool = self.pool
        task = cast(OpenableTask, self._app.tasks[TASK])
        self.fetcher = pool.call(
            self._app.open_fetcher(
                owner=self.hostname,
                slots=pool.num_processes,
                on_arrival=self._on_arrival,
                on_stop=pool.stop_job,
            )
        )
        self.fetcher.on_refused = self._on_refused
        pool.at_stop(self.fetcher.close)
        try:
            pool.call(task.open(self._app.settings, self._app.servers, self.fetcher))
        except (Unreachable, WrongUse) as error:
            log.critical("%s", error)
            wrong = isinstance(error, WrongUse)
            raise WorkerShutdown(EXIT_WRONG_USE if wrong else EXIT_UNREACHABLE) from None
        pool.at_stop(task.close)

    def resize(self, slots: int) -> None:
        """Hold up to `slots` jobs at a time from now on. If more are held, they end first."""
        self.pool.resize(slots)
        if self.fetcher is not None:
            self.fetcher.resize(self.pool.num_processes)

    def revoke(self, ids: Sequence[str]) -> None:
        """Cancel those of these jobs that no worker runs."""
        task = cast(OpenableTask, self._app.tasks[TASK])
        self.pool.spawn(task.revoke(ids))

    # Arrivals: from the loop's thread to this one.

    def _on_arrival(self, arrivals: list[Arrival]) -> None:
        self._arrivals.extend(arrivals)
        if len(self._arrivals) == len(arrivals) and self.hub is not None:
            self.hub.call_soon(self._deliver)

    def _on_refused(self, job_id: str) -> None:
        if self.hub is not None:
            self.hub.call_soon(self._tell_refused, job_id)

    def _tell_refused(self, job_id: str) -> None:
        """Send the event of a message that Celery never sees, since it is refused before."""
        dispatcher = self.event_dispatcher
        if dispatcher is not None and dispatcher.enabled:
            dispatcher.send("task-failed", uuid=job_id, name=TASK, **REFUSED.fields(0.0))

    def pause(self) -> None:
        """Fetch no jobs."""
        if self.fetcher is not None:
            self.fetcher.serve([])
            self._served = []

    def give_back(self, fetcher: Fetcher) -> Future[None]:
        """Return the jobs that Celery has not begun to their places in their queues."""
        self._arrivals.clear()
        return self.pool.spawn(fetcher.give_back_others(self.pool.tags))

    def stop(self) -> None:
        """End or return all jobs first: the rest waits for a broker that may not answer."""
        self._app.stopping.may_interrupt = False
        self._app.stopping.begin()
        self.pause()
        if self.fetcher is not None:
            self.give_back(self.fetcher)
        self.pool.stop()
        if self._broker_answers():
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
        if self.hub is not None:
            self.hub.call_soon(self._deliver)

    def _deliver(self) -> None:
        """Hand all arrivals to Celery, and let the Fetcher serve the queues that are chosen now."""
        if self._receive is None or self.task_consumer is None or self.fetcher is None:
            return
        if self._app.stopping.has_begun:
            self.pause()
            self.give_back(self.fetcher)
            return
        queues = self._by_priority(self.task_consumer.channel.job_queues)
        if queues != self._served:
            self._served = queues
            self.fetcher.serve(queues)
            self._app.heartbeat.ready()
        # A job that was put off may be back already. Celery knows jobs by their ids alone: it must
        # learn of the end of the run before, or it would forget the new one.
        self.pool.drain()
        while self._arrivals:
            arrival = self._arrivals.popleft()
            if arrival.tag not in self.fetcher.leases.held:
                continue  # its lease was returned meanwhile
            try:
                self._receive(JobMessage(arrival, self.fetcher.ack))
            except Exception as error:
                self._reject(self.fetcher, arrival, place_of(error))

    def _reject(self, fetcher: Fetcher, arrival: Arrival, fault: str) -> None:
        """Let the lease of a message that Celery refuses lapse; at last make it a dead letter.

        Otherwise one message could end the worker and all its jobs.
        """
        log.error("Celery refused a message of %s: %s", arrival.queue, fault)
        if arrival.crashes + 1 >= self._app.settings.max_deliveries:
            reason = f"{GIVEN_UP}: Celery refuses it: {fault}"
            waiter = waiter_of(arrival.content.headers, self._app.settings.result_ttl_s)
            self.pool.spawn(fetcher.leases.bury(arrival.tag, reason, waiter))
        else:
            self.pool.call_soon(fetcher.leases.drop, arrival.tag)

    def _by_priority(self, queues: list[str]) -> list[str]:
        known = {name: place for place, name in enumerate(self._app.job_queues)}
        return sorted(queues, key=lambda name: known.get(name, len(known)))

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """Return Celery's function for each message, and remember it for our arrivals."""
        self._receive = super().create_task_handler(*args, **kwargs)
        return self._receive

    def register_with_event_loop(self, hub: Any) -> None:
        """Deliver arrivals on every turn of the loop. Celery calls this after each (re)connect."""
        super().register_with_event_loop(hub)
        self._served = []
        hub.on_tick.add(self._deliver)

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """Acknowledge at once: the Fetcher takes acks from any thread, connected or not."""
        p(*args, **kwargs)
        return p

    def on_ready(self) -> None:
        """Forbid interrupts: the loop runs from now on and notices a signal by itself."""
        self._app.stopping.may_interrupt = False
        super().on_ready()

    # Celery's connection comes back soon, and its loss is logged once.

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Close Celery's connection; the jobs go on."""
        with warnings.catch_warnings():  # hides Celery's notice that a default may change
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)

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
