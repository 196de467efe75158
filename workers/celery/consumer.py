"""Celery's consumer, with the Fetcher in place of kombu's consuming, and without gossip.

Deliveries go from the Fetcher's thread to Celery's through an ordered deque that outlives broker
connections: what arrived while Celery reconnects is delivered afterwards.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

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
from headgate.shared.errors import Unreachable, place_of
from headgate.workers.celery import control  # noqa: F401  # its commands are known from here on
from headgate.workers.celery.pool import RETURN_S, TaskPool
from headgate.workers.celery.shutdown import EXIT_DONE, EXIT_UNREACHABLE
from headgate.workers.celery.transport import JobMessage
from headgate.workers.delivery.fetcher import Fetcher
from headgate.workers.delivery.message import Arrival

if TYPE_CHECKING:
    from headgate.workers.app import Headgate
    from headgate.workers.tasks import JobTask

log = logging.getLogger("headgate.consumer")

RECONNECT_S = 1.0
"""Longest pause between two tries to reach the broker (Celery's own grows to 30 s)."""


class JobConsumer(Tasks):
    """Opens the door and the Fetcher once; serves while Celery's consumer runs."""

    requires = (Events,)  # not Mingle, which the stock step asks for: workers share no state

    def start(self, c: Any) -> None:
        """JobConsumer arrive from the queues that Celery consumes from."""
        super().start(c)
        if c.fetcher is None:
            c.open_fetcher()
        else:
            # Celery has forgotten what it had not begun when the connection broke. Before new jobs
            # come: none of them may be taken for such a one.
            with suppress(TimeoutError):
                c.give_back(c.fetcher).result(RETURN_S)

    def stop(self, c: Any) -> None:
        """No new jobs arrive; those that run go on."""
        c.pause()
        super().stop(c)


class JobControl(Control):
    """The stock step, which would bring the stock Tasks step with it."""

    requires = (JobConsumer,)


class Consumer(stock.Consumer):
    """`worker_consumer` of the worker app."""

    app: Headgate
    pool: TaskPool
    hub: Any
    controller: Any
    task_consumer: Any
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
            """What `inspect stats` and Flower tell; of the broker nothing that holds a password."""
            told: dict[str, Any] = super().info(parent)
            if isinstance(broker := told.get("broker"), dict):
                hidden = ("alternates", "transport_options")
                told["broker"] = {k: v for k, v in broker.items() if k not in hidden}
            return told

        def shutdown(self, parent: Any) -> None:
            """All steps were shut down in turn."""
            self.send_all(parent, "shutdown")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.fetcher: Fetcher | None = None
        self._arrivals: deque[Arrival] = deque()
        self._receive: Any = None
        self._served: list[str] = []
        super().__init__(*args, **kwargs)
        self.app.stopping.when_told(self._when_told)
        self.app.stopping.exit_code = self._exit_code

    def open_fetcher(self) -> None:
        """The Fetcher and the door of the jobs are open; both close with the pool."""
        pool = self.pool
        door = cast("JobTask", self.app.tasks[TASK])
        self.fetcher = pool.call(
            self.app.open_fetcher(
                owner=self.hostname,
                slots=pool.num_processes,
                on_arrival=self._on_arrival,
                on_stop=pool.stop_job,
            )
        )
        pool.at_stop(self.fetcher.close)
        try:
            pool.call(door.open(self.app.settings, self.app.servers, self.fetcher))
        except Unreachable as error:
            log.critical("%s", error)
            raise WorkerShutdown(EXIT_UNREACHABLE) from None
        pool.at_stop(door.close)

    def resize(self, slots: int) -> None:
        """From now on up to `slots` jobs are held at a time; those over it end first."""
        self.pool.resize(slots)
        if self.fetcher is not None:
            self.fetcher.resize(slots)

    # Arrivals: from the loop's thread to this one.

    def _on_arrival(self, arrivals: list[Arrival]) -> None:
        self._arrivals.extend(arrivals)
        if len(self._arrivals) == len(arrivals) and self.hub is not None:
            self.hub.call_soon(self._deliver)

    def pause(self) -> None:
        """No jobs are fetched."""
        if self.fetcher is not None:
            self.fetcher.serve([])
            self._served = []

    def give_back(self, fetcher: Fetcher) -> Future[None]:
        """All that Celery has not begun is going back to its place."""
        self._arrivals.clear()
        return self.pool.spawn(fetcher.give_back_others(self.pool.tags))

    def stop(self) -> None:
        """JobConsumer have ended or are back, before anything waits for a broker that may be silent."""
        self.app.stopping.may_interrupt = False
        self.app.stopping.begin()
        self.pause()
        if self.fetcher is not None:
            self.give_back(self.fetcher)
        self.pool.stop()
        if self._is_heard():
            super().stop()

    def shutdown(self) -> None:
        """The worker ends with a code that tells whether all jobs went back."""
        if self._exit_code():
            self.controller.exitcode = self._exit_code()
        if self._is_heard():
            super().shutdown()
        self.app.stopping.leave()

    def _is_heard(self) -> bool:
        """Whether Celery's goodbye would reach the broker, and not wait for it in vain."""
        return self.fetcher is None or self.fetcher.leases.has_left

    def _exit_code(self) -> int:
        lapsing = self.fetcher.left_behind if self.fetcher is not None else 0
        return EXIT_UNREACHABLE if lapsing else EXIT_DONE

    def _when_told(self) -> None:
        # In a thread of its own; Celery's may wait for the broker, or for something to happen.
        if self.fetcher is not None:
            self.fetcher.serve([])
        if self.hub is not None:
            self.hub.call_soon(self._deliver)

    def _deliver(self) -> None:
        """Celery has received all that arrived, and the Fetcher knows today's queues."""
        if self._receive is None or self.task_consumer is None or self.fetcher is None:
            return
        if self.app.stopping.told:
            self.pause()
            self.give_back(self.fetcher)
            return
        queues = self._by_priority(self.task_consumer.channel.job_queues)
        if queues != self._served:
            self._served = queues
            self.fetcher.serve(queues)
            self.app.life.ready()
        while self._arrivals:
            arrival = self._arrivals.popleft()
            if arrival.tag not in self.fetcher.leases.held:
                continue  # it arrived while everything went back
            try:
                self._receive(JobMessage(arrival, self.fetcher.ack))
            except Exception as error:
                # Whatever Celery dislikes about it must not end the worker and all its jobs. Its
                # lease lapses, and after a few such rounds it is a dead letter.
                fault = place_of(error)
                log.error("Celery refused a message of %s: %s", arrival.queue, fault)
                if arrival.crashes + 1 >= self.app.settings.max_deliveries:
                    reason = f"{GIVEN_UP}: Celery refuses it: {fault}"
                    self.pool.spawn(self.fetcher.leases.bury(arrival.tag, reason))
                else:
                    self.pool.call_soon(self.fetcher.leases.drop, arrival.tag)

    def _by_priority(self, queues: list[str]) -> list[str]:
        known = {name: place for place, name in enumerate(self.app.job_queues)}
        return sorted(queues, key=lambda name: known.get(name, len(known)))

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """What the event loop calls for each message; kept, since arrivals come another way."""
        self._receive = super().create_task_handler(*args, **kwargs)
        return self._receive

    def register_with_event_loop(self, hub: Any) -> None:
        """Called after each (re)connect: arrivals and queues are looked after on every turn."""
        super().register_with_event_loop(hub)
        self._served = []
        hub.on_tick.add(self._deliver)

    def call_soon_ack(self, p: Any, *args: Any, **kwargs: Any) -> Any:
        """The ack is noted at once: the Fetcher takes it from any thread, connected or not."""
        p(*args, **kwargs)
        return p

    def on_ready(self) -> None:
        """The loop turns from now on: it hears of a signal by itself."""
        self.app.stopping.may_interrupt = False
        super().on_ready()

    # Celery's connection comes back soon, and its loss is said once.

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery's connection is closed; the jobs go on."""
        with warnings.catch_warnings():  # a notice of five lines: a default of ours may change
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)

    def ensure_connected(self, conn: Any) -> Any:
        """The connection works; tried at least once a second until it does, or a signal comes."""
        said = False
        self.app.stopping.may_interrupt = True

        def on_error(error: Exception, _interval: float) -> None:
            nonlocal said
            if not said:
                said = True
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
