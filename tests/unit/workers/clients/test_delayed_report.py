"""Gather, then report: one timer for many notes, and failures that disturb nobody."""

import asyncio
from collections.abc import Iterator

from headgate.workers.clients.delayed_report import DelayedReport, Report


class Notes:
    """Gathers numbers and reports their sum."""

    def __init__(self, fails: bool = False) -> None:
        self.gathered: list[int] = []
        self.reported: list[int] = []
        self.fails = fails
        self.report = DelayedReport(0.01, self.reports)
        self.done = asyncio.Event()

    def note(self, number: int) -> None:
        self.gathered.append(number)
        self.report.schedule()

    def reports(self) -> Iterator[Report]:
        gathered, self.gathered = self.gathered, []
        yield self.send(sum(gathered))

    async def send(self, total: int) -> None:
        self.done.set()
        if self.fails:
            raise ConnectionError
        self.reported.append(total)


async def test_what_is_gathered_within_the_delay_is_one_report() -> None:
    notes = Notes()
    notes.note(1)
    notes.note(2)
    await asyncio.wait_for(notes.done.wait(), 10)
    assert notes.reported == [3]
    notes.done.clear()
    notes.note(4)
    await asyncio.wait_for(notes.done.wait(), 10)
    assert notes.reported == [3, 4]


async def test_a_report_that_fails_is_dropped_and_the_next_one_is_sent() -> None:
    notes = Notes(fails=True)
    notes.note(1)
    await asyncio.wait_for(notes.done.wait(), 10)
    notes.fails = False
    notes.done.clear()
    notes.note(2)
    await asyncio.wait_for(notes.done.wait(), 10)
    assert notes.reported == [2]


async def test_a_report_that_cannot_wait_is_sent_at_once() -> None:
    notes = Notes()
    notes.report.send(notes.send(7))
    await asyncio.wait_for(notes.done.wait(), 10)
    assert notes.reported == [7]


async def test_after_close_nothing_is_reported() -> None:
    notes = Notes()
    notes.note(1)
    notes.report.send(notes.send(7))
    notes.report.close()
    await asyncio.sleep(0.05)
    assert (notes.gathered, notes.reported) == ([1], [])
