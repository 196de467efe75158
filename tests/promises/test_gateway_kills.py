"""kill -9 of a gateway, a worker and the Valkey while many streams are open at the gateway."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support import installation
from tests.support.child import BUSY, wait_until
from tests.support.event_reader import Event, EventReader
from tests.support.gateway import Gateway, House, house
from tests.support.servers import Simulator, ValkeyServer

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
MANY = 200
LATENCY_MS = 12_000
"""The time of one answer: its first piece comes after a quarter of it."""


class StreamCall(threading.Thread):
    """One caller, who notes what it reads. Each asks for something else, of equal price."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.path = (CHAT, MESSAGES)[number % 2]
        self.key = f"key-{number}"
        message = {"role": "user", "content": f"prompt number {number:06d}"}
        self.body: dict[str, Any] = {
            "model": installation.MODEL, "max_tokens": 300, "messages": [message], "stream": True,
        }  # fmt: skip
        self.events: list[Event] = []
        self.job_id = ""
        self.gateway: Gateway | None = None

    def begin(self, gateway: Gateway) -> None:
        """Make the call."""
        self.gateway = gateway
        self.start()

    def run(self) -> None:
        assert self.gateway is not None
        with self.open(self.gateway, 0) as reader:
            self.job_id = reader.headers["x-headgate-job-id"]
            for event in reader:
                self.events.append(event)

    def open(self, gateway: Gateway, after: int) -> EventReader:
        """Make the call at this gateway, of which so many events have come."""
        last = {"last_event_id": str(after)} if after else {}
        return EventReader(
            gateway, self.path, self.body, idempotency_key=self.key, timeout_s=120, **last
        )

    @property
    def numbered(self) -> list[Event]:
        """What has come of the answer, without pings and faults."""
        return [event for event in self.events if event.number is not None]

    @property
    def is_whole(self) -> bool:
        """Whether the answer has come to its end."""
        return bool(self.events) and self.events[-1].is_end

    @property
    def is_fault(self) -> bool:
        """Whether the stream has ended with an error of its dialect."""
        return bool(self.events) and self.events[-1].is_fault

    def again(self, gateway: Gateway, after: int = 0) -> list[Event]:
        """The answer from an event on, as this gateway has it."""
        with self.open(gateway, after) as reader:
            assert reader.status == 200, [reader.line() for _ in range(3)]
            return [event for event in reader if event.number is not None]


@pytest.fixture
def simulator(simulator_factory: Callable[..., Simulator]) -> Simulator:
    flags = ["--latency-ms", str(LATENCY_MS), "--latency-sigma", "0"]
    return simulator_factory(*flags, "--output-tokens", "120", "--output-sigma", "0")


@pytest.fixture
def at(sqlite_url: str, valkey_factory: Callable[..., ValkeyServer], simulator: Simulator,
       tmp_path: Path) -> Iterator[tuple[House, ValkeyServer]]:  # fmt: skip
    """A house on a Valkey that may be killed."""
    valkey = valkey_factory(appendonly=True)
    bounds = {"concurrency": str(MANY), "lease_s": "10"}
    with house(valkey, sqlite_url, simulator, tmp_path, **bounds) as found:
        yield found, valkey


def all_read(gateway: Gateway) -> list[StreamCall]:
    """So many calls, each of which has read some events."""
    calls = [StreamCall(number) for number in range(MANY)]
    for call in calls:
        call.begin(gateway)
    wait_until(lambda: all(len(call.numbered) >= 2 for call in calls), 60, "all to read")
    return calls


def ended(calls: list[StreamCall]) -> None:
    """All callers have come to an end, in whatever way."""
    for call in calls:
        call.join(60 * BUSY)
    assert not any(call.is_alive() for call in calls)


def text_of(events: list[Event]) -> str:
    """The text of an answer."""
    return "".join(event.text for event in events)


def url_of(house_: House) -> str:
    return house_.env["HEADGATE_DATABASE_URL"]


def open_attempts(house_: House) -> int:
    """How many calls to the provider are under way, as the record has it."""
    return installation.read_books(url_of(house_)).attempts.get("open", 0)


@pytest.mark.slow
def test_streams_of_a_killed_gateway_go_on_at_another_byte_for_byte(
    at: tuple[House, ValkeyServer], tmp_path: Path
) -> None:
    house_, _ = at
    with ExitStack() as stack:
        second = stack.enter_context(Gateway(house_.env, tmp_path, name="second"))
        calls = all_read(house_.gateway)
        house_.gateway.kill()
        ended(calls)
        assert not any(call.is_fault for call in calls)
        broken = [call for call in calls if not call.is_whole]
        assert broken, "no stream was open at the kill"
        rests: dict[str, list[Event]] = {}

        def go_on(call: StreamCall) -> None:
            rests[call.key] = call.again(second, len(call.numbered))

        threads = [threading.Thread(target=go_on, args=(call,), daemon=True) for call in broken]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60 * BUSY)
        assert len(rests) == len(broken)
        for call in calls:
            whole = call.numbered + rests.get(call.key, [])
            assert [event.number for event in whole] == list(range(1, len(whole) + 1))
            assert whole[-1].is_end
            assert whole == call.again(second)
    assert house_.worker.stop(30) == 0
    installation.the_books_agree(url_of(house_), house_.simulator, MANY, unknown=0)


@pytest.mark.slow
def test_streams_of_a_killed_worker_end_with_an_error_and_others_come_whole(
    at: tuple[House, ValkeyServer], tmp_path: Path
) -> None:
    """A stream that has begun is never begun anew: its job ends, and is paid for once at most."""
    house_, _ = at
    other = installation.worker_process(house_.env, tmp_path, "two")
    with installation.ended_afterwards(other):
        other.start()
        calls = all_read(house_.gateway)
        house_.worker.kill()
        ended(calls)
        whole = [call for call in calls if call.is_whole]
        assert all(call.is_whole or call.is_fault for call in calls)
        for call in whole:
            assert call.numbered == call.again(house_.gateway)
        wait_until(lambda: open_attempts(house_) == 0, 60, "all calls to be closed")
        wait_until(
            lambda: installation.read_books(url_of(house_)).audit_lines == MANY, 60, "all to end"
        )
        assert other.stop(30) == 0
    books, stats = installation.read_books(url_of(house_)), house_.simulator.stats()
    unknown = books.attempts.get("unknown", 0)
    assert books.jobs.get("succeeded", 0) == len(whole)
    assert books.jobs.get("failed", 0) == MANY - len(whole) > 0
    assert books.jobs_with_unknown == unknown == MANY - len(whole)
    assert stats["requests"] == stats["prompts"]["distinct"] == MANY
    assert stats["prompts"]["paid_again"] == 0
    assert books.audit_usd == books.ledger_usd


@pytest.mark.slow
def test_streams_go_on_or_end_with_an_error_when_the_valkey_is_killed(
    at: tuple[House, ValkeyServer],
) -> None:
    house_, valkey = at
    calls = all_read(house_.gateway)
    valkey.kill()
    valkey.start()
    ended(calls)
    assert all(call.is_whole or call.is_fault for call in calls)
    whole = [call for call in calls if call.is_whole]
    for call in whole:
        numbers = [event.number for event in call.numbered]
        assert numbers == list(range(1, len(numbers) + 1))
        # Redis may have lost its last events: then the rest comes from the result, in other pieces.
        assert text_of(call.numbered) == text_of(call.again(house_.gateway)) != ""
    wait_until(
        lambda: installation.read_books(url_of(house_)).audit_lines == MANY, 60, "all to end"
    )
    assert house_.worker.running
    assert house_.worker.stop(30) == 0
    books, stats = installation.read_books(url_of(house_)), house_.simulator.stats()
    print(f"{len(whole)} of {MANY} came whole; {books.jobs}")  # noqa: T201
    assert sum(books.jobs.values()) == MANY
    assert set(books.jobs) <= {"succeeded", "cancelled"}
    assert stats["requests"] == stats["prompts"]["distinct"] == MANY
    assert books.audit_usd == books.ledger_usd
