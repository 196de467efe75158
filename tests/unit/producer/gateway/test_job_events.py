"""The events of one job as its caller gets them: what faults in the middle become."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from headgate.producer.callers.caller import OPEN_CALLER
from headgate.producer.client.delta_reader import DeltaReader, Fields
from headgate.producer.errors import JobTimeout
from headgate.producer.gateway.calls.call import GatewayCall
from headgate.producer.gateway.calls.faults import CallRefused
from headgate.producer.gateway.calls.open_streams import OpenStreams
from headgate.producer.gateway.calls.streams import JobEvents, Streaming
from headgate.shared.errors import HeadgateError, Unreachable
from headgate.shared.job.result import Result
from headgate.shared.job.waiting_for import WaitingFor

JOB = "0193-1"
HEAD = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
PIECE = b'{"choices":[{"index":0,"delta":{"content":"hello"}}]}'


class PlayedStreams:
    """A job whose events a test writes, with all that its reader needs of a gateway."""

    def __init__(self, *entries: tuple[str, bytes]) -> None:
        self.entries = [(name.encode(), fields(line)) for name, line in entries]
        self.left: list[bool] = []
        self.look_fault: HeadgateError | None = None
        self.deltas = self

    def open(self, job_id: str) -> DeltaReader:
        """Return a reader that has read all entries."""
        reader = DeltaReader(job_id, lambda _: None)
        reader.add(self.entries, has_more=False)
        return reader

    def stop_reading(self, _reader: DeltaReader | None, ended: asyncio.Future[Result]) -> None:
        """Stop waiting for the result."""
        ended.cancel()

    async def ended(self, _job_id: str) -> Result:
        """Wait for ever."""
        await asyncio.Event().wait()
        raise AssertionError

    def end_or_wait(self, _job_id: str) -> WaitingFor | None:
        """Say that the job runs."""
        if self.look_fault is not None:
            raise self.look_fault
        return None

    def leave(self, _call: object, _job_id: str, *, resumable: bool = True) -> None:
        """Note that the job is left."""
        self.left.append(resumable)


def fields(line: bytes) -> Fields:
    """An entry with one event of OpenAI's."""
    return {b"d": b"", b"k": b"openai", b"e": line}


def events_of(played: PlayedStreams, **given: Any) -> JobEvents:
    """Return the events for a call of OpenAI's dialect."""
    call = GatewayCall("openai", "chat", OPEN_CALLER, {"stream": True}, "req_1", "gpt-4o-mini",
                       **{"wait_s": 30.0, **given})  # fmt: skip
    at: Any = Streaming(played, played, played, OpenStreams(9))  # type: ignore[arg-type]  # played
    at.open_streams.begin("")
    return JobEvents(at, call, JOB)


async def test_a_fault_of_ours_ends_a_stream_in_the_form_of_its_dialect(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    played = PlayedStreams(("1-1", HEAD))
    events = events_of(played)
    assert await events.begin() is None
    assert b"assistant" in (await events.next() or b"")

    async def fail() -> None:
        raise KeyError("the text of a prompt")

    monkeypatch.setattr(events, "_stream", SimpleNamespace(next=fail, close=lambda: None))
    end = await events.next()
    assert end is not None
    assert b'"code":"internal"' in end
    assert b"prompt" not in end
    assert "prompt" not in caplog.text
    assert await events.next() is None
    assert played.left == [False]
    events.close()


async def test_a_stream_is_not_resumed_with_the_events_of_another_answer() -> None:
    entries = ("1-1", HEAD), ("1-2", PIECE), ("2-1", HEAD), ("2-2", PIECE)
    events = events_of(PlayedStreams(*entries), after=1)
    with pytest.raises(CallRefused, match="are gone"):
        await events.begin()
    events.close()
    anew = events_of(PlayedStreams(*entries))
    assert await anew.begin() is None
    assert (await anew.next() or b"").count(b"id: ") == 2
    anew.close()


def test_a_reader_that_leaves_out_an_earlier_claim_says_so() -> None:
    reader = DeltaReader(JOB, lambda _: None)
    assert not reader.has_skipped
    reader.skip_to(b"2")
    assert reader.has_skipped


async def test_a_stream_goes_on_if_the_servers_are_away_when_it_looks_for_a_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headgate.producer.gateway.calls.streams.PING_S", 0.3)
    monkeypatch.setattr("headgate.producer.gateway.calls.streams.LOOK_S", 0.1)
    played = PlayedStreams()
    played.look_fault = Unreachable("the database", "away", "wait")
    events = events_of(played)
    assert await events.begin() is None
    assert await events.next() == b": ping\n"
    events.close()


async def test_a_stream_waits_for_its_first_event_no_longer_than_its_caller() -> None:
    played = PlayedStreams()
    events = events_of(played, wait_s=0.1, is_patient=True)
    with pytest.raises(JobTimeout):
        await events.begin()
    assert played.left == [False]
    events.close()
