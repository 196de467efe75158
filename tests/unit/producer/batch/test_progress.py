"""What is shown of a batch that runs: lines in a log, and a bar on a terminal."""

from __future__ import annotations

import io
import time
from decimal import Decimal

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress

from headgate.producer.batch import progress
from headgate.producer.batch.pace import BatchFigures
from headgate.producer.batch.progress import Bar, PlainLines
from headgate.shared.job.waiting_for import WaitingFor

FIGURES = BatchFigures(2, 1, 8, 3, 0.5, 900.0, 6000, Decimal("0.02"), False, 4.0, 16.0)


def test_a_log_gets_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    told: list[str] = []
    lines = PlainLines(10, told.append)
    lines.advance(done=1, failed=0)
    lines.show(FIGURES)
    lines.advance(done=2, failed=1)
    assert told == [
        "1 of 10 done, 0 failed",
        "2 of 10 done, 1 failed, 3 running, 8 left, 0.5 answers/s, 900 of 6,000 tokens/min, "
        "0.0200 USD, 4 s passed, about 16 s to go",
    ]


def test_a_log_is_not_filled_while_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    told: list[str] = []
    lines = PlainLines(10, told.append)
    for _ in range(5):
        lines.advance(done=3, failed=0)
    assert len(told) == 1
    now = time.monotonic() + progress.STILL_EVERY_S + 1
    monkeypatch.setattr(time, "monotonic", lambda: now)
    lines.advance(done=3, failed=0)
    assert len(told) == 2


def test_a_bar_has_figures_and_waits_below_it_at_80_columns() -> None:
    console = Console(file=io.StringIO(), width=80)
    bars = RichProgress(*progress._columns(), console=console)
    bar = Bar(bars, bars.add_task("jobs", total=10, failed=0), str.upper)
    bar.advance(done=2, failed=1)
    bar.show(FIGURES)
    bar.waits_for(WaitingFor("no_key", "openai"))
    with console.capture() as captured:
        console.print(bar.renderable())
    lines = captured.get().splitlines()
    assert "2/10" in lines[0]
    assert "1 failed" in lines[0]
    assert " ".join(" ".join(lines[1:-1]).split()) == FIGURES.in_words()
    assert lines[-1].rstrip() == "WAITING FOR A KEY OF OPENAI"
