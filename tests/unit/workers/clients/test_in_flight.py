"""Messages and answers share what a worker may hold, and no call waits for ever."""

import asyncio

import pytest

from headgate.workers.clients.in_flight import SMALL, AnswerRoom, InFlight

MB = 1024 * 1024


def test_answers_leave_less_for_messages_and_give_it_back() -> None:
    in_flight = InFlight(10 * MB, lambda: 3 * MB)
    assert in_flight.left == 7 * MB
    room = AnswerRoom(in_flight)
    room.hold(4 * MB)
    assert in_flight.left == 3 * MB
    room.hold(1 * MB)
    assert in_flight.left == 6 * MB
    room.release()
    room.release()
    assert (in_flight.left, in_flight.answers) == (7 * MB, 0)


@pytest.mark.parametrize(("messages_mb", "answers_mb"), [(0, 10), (3, 7), (9, 5), (20, 5)])
def test_half_is_always_there_for_answers(messages_mb: int, answers_mb: int) -> None:
    in_flight = InFlight(10 * MB, lambda: messages_mb * MB)
    AnswerRoom(in_flight).hold(answers_mb * MB)
    assert not in_flight.is_full
    AnswerRoom(in_flight).hold(1)
    assert in_flight.is_full


async def test_the_first_that_finds_no_room_goes_on_and_the_others_follow_in_their_order() -> None:
    in_flight = InFlight(10 * MB)
    rooms = [AnswerRoom(in_flight) for _ in range(4)]
    assert rooms[0].hold(9 * MB)
    assert [room.hold(2 * MB) for room in rooms[1:]] == [True, False, False]
    assert rooms[1].hold(500 * MB), "one call alone may be larger than all that there is"
    waits = [asyncio.ensure_future(room.wait()) for room in rooms[2:]]
    await asyncio.sleep(0)
    rooms[0].release()
    await asyncio.sleep(0)
    assert [wait.done() for wait in waits] == [False, False]
    rooms[1].release()
    await asyncio.gather(*waits)
    assert in_flight.answers == 4 * MB


async def test_one_that_stopped_waiting_holds_up_nobody() -> None:
    in_flight = InFlight(10 * MB)
    full, gone, last = (AnswerRoom(in_flight) for _ in range(3))
    full.hold(11 * MB)
    waits = [asyncio.ensure_future(room.wait()) for room in (gone, last) if not room.hold(MB)]
    assert len(waits) == 2
    await asyncio.sleep(0)
    waits[0].cancel()
    full.release()
    gone.release()
    await asyncio.wait_for(waits[1], 10)
    assert in_flight.answers == MB


def test_a_small_answer_never_waits() -> None:
    in_flight = InFlight(10 * MB)
    AnswerRoom(in_flight).hold(20 * MB)
    assert AnswerRoom(in_flight).hold(SMALL)
    assert not AnswerRoom(in_flight).hold(SMALL + 1)
