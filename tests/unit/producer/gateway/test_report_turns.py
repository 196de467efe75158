"""Reports take turns, and none is read while the thread of another still runs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headgate.producer.gateway.calls.report_turns import ReportTurns
from tests.unit.producer.gateway.doors import WAIT_S


async def test_a_report_that_nobody_awaits_any_more_keeps_its_turn_until_it_ends() -> None:
    reports, may_end = ReportTurns(), threading.Event()
    began: list[str] = []

    def slow() -> None:
        began.append("slow")
        assert may_end.wait(WAIT_S)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reports.read(slow)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await reports.read(lambda: began.append("early"))
    may_end.set()
    async with asyncio.timeout(WAIT_S):
        await reports.read(lambda: began.append("late"))
    assert began == ["slow", "late"]


async def test_a_report_that_fails_lets_the_next_one_go() -> None:
    reports = ReportTurns()
    with pytest.raises(ZeroDivisionError):
        await reports.read(lambda: 1 // 0)
    assert await reports.read(lambda: 7) == 7
