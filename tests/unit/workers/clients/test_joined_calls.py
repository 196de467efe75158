"""Calls of one script for many jobs become one, in an order that tells no end too early."""

from __future__ import annotations

import asyncio

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command
from headgate.workers.clients.joined_calls import (
    MOST_BYTES,
    MOST_JOINED,
    JoinedCall,
    PendingCommand,
    calls_of,
)
from headgate.workers.stages.hold import settle


def settling(job_id: str, prefix: str = "") -> Command[bool]:
    return settle(Keys(prefix), job_id=job_id, grant="g", used=(1, 2))


def calls(*commands: Command[bool] | str) -> list[JoinedCall]:
    """The calls that come of these commands; a text is a command that goes alone."""
    loop = asyncio.new_event_loop()
    pending = [
        PendingCommand((command,), loop.create_future())
        if isinstance(command, str)
        else PendingCommand(command.by_sha(), loop.create_future(), command.tail_at)
        for command in commands
    ]
    found = calls_of(pending)
    loop.close()
    assert sorted(map(id, (ask for call in found for ask in call.asks))) == sorted(map(id, pending))
    return found


def test_the_words_of_each_job_follow_one_head() -> None:
    [call] = calls(settling("a", "p:"), settling("b", "p:"))
    sha = settling("a").sha
    assert call.is_joined
    assert call.words == ["EVALSHA", sha, 0, "p:", "a", "g", 1, 2, -1, "b", "g", 1, 2, -1]


def test_a_call_stands_where_its_last_command_stood() -> None:
    found = calls("first", settling("a"), "piece", settling("b"), "last")
    assert [call.words[0] for call in found] == ["first", "piece", "EVALSHA", "last"]
    assert [len(call.asks) for call in found] == [1, 1, 2, 1]


def test_other_heads_are_other_calls() -> None:
    found = calls(settling("a", "one:"), settling("b", "two:"), settling("c", "one:"))
    assert [call.words[3] for call in found] == ["two:", "one:"]


def test_a_call_takes_no_more_jobs_than_the_server_ends_in_a_moment() -> None:
    found = calls(*(settling(f"{n}") for n in range(2 * MOST_JOINED + 1)))
    assert [len(call.asks) for call in found] == [MOST_JOINED, MOST_JOINED, 1]


def test_a_large_command_is_the_last_of_its_call() -> None:
    large = settling("x" * MOST_BYTES)
    found = calls(settling("a"), large, settling("b"))
    assert [len(call.asks) for call in found] == [2, 1]
