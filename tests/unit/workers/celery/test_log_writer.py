"""The worker's log: grouped, bounded, and told what was dropped."""

from __future__ import annotations

import io
import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

import pytest

from headgate.workers.celery.log_writer import JsonFormatter, LogWriter, install
from tests.support.child import wait_until


class Stuck(io.StringIO):
    """A stream that blocks, or fails, as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.is_full, self.writes = threading.Event(), False, 0
        self.open.set()

    def write(self, text: str) -> int:
        self.writes += 1
        self.open.wait(60)
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.fixture
def stream() -> Iterator[Stuck]:
    stuck = Stuck()
    yield stuck
    stuck.open.set()


def logger_of(writer: logging.Handler) -> logging.Logger:
    logger = logging.Logger("test")
    logger.addHandler(writer)
    return logger


def test_records_are_written_in_their_order_and_in_groups(stream: Stuck) -> None:
    writer = LogWriter(logging.StreamHandler(stream))
    log = logger_of(writer)
    for n in range(1000):
        log.info("line %d", n)
    writer.flush()
    assert stream.getvalue().splitlines() == [f"line {n}" for n in range(1000)]
    assert stream.writes < 100


def test_a_record_that_comes_while_the_thread_wakes_leaves_the_next_ones_a_wake(
    stream: Stuck,
) -> None:
    came: list[str] = []

    def meanwhile(_frame: object, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ == "empty" and not came:
            came.append("second")
            log.info("second")

    log = logging.Logger("test")
    threading.setprofile(meanwhile)
    try:
        log.addHandler(LogWriter(logging.StreamHandler(stream)))
        log.info("first")
        wait_until(lambda: "second" in stream.getvalue(), 10, "the record that came meanwhile")
    finally:
        threading.setprofile(None)
    log.info("third")
    wait_until(lambda: "third" in stream.getvalue(), 10, "the next record")


def test_a_stuck_stream_holds_nobody_up_and_what_was_dropped_is_told(stream: Stuck) -> None:
    writer = LogWriter(logging.StreamHandler(stream), kept=10)
    log = logger_of(writer)
    stream.open.clear()
    log.info("first")
    wait_until(lambda: stream.writes == 1, 30, "the thread to be stuck")
    for n in range(100):
        log.info("line %d", n)
    stream.open.set()
    writer.flush()
    log.info("last")
    writer.flush()
    lines = stream.getvalue().splitlines()
    assert lines[:11] == ["first", *(f"line {n}" for n in range(10))]
    notice = "90 log lines were dropped: the log could not be written"
    assert sorted(lines[11:]) == [notice, "last"]


def test_a_full_disk_costs_lines_and_nothing_else(stream: Stuck) -> None:
    writer = LogWriter(logging.StreamHandler(stream))
    log = logger_of(writer)
    stream.is_full = True
    log.error("lost")
    writer.flush()
    assert stream.getvalue() == ""
    stream.is_full = False
    log.error("kept")
    writer.flush()
    assert stream.getvalue().splitlines() == [
        "kept", "1 log lines were dropped: the log could not be written"
    ]  # fmt: skip


def test_a_record_that_cannot_be_formatted_is_left_out(
    stream: Stuck, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = LogWriter(logging.StreamHandler(stream))
    log = logger_of(writer)
    log.info("%d", "no number")
    log.info("next")
    writer.flush()
    assert stream.getvalue().splitlines() == ["next"]
    assert "Logging error" in capsys.readouterr().err


def test_a_log_file_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "worker.log"
    writer = LogWriter(WatchedFileHandler(path))
    log = logger_of(writer)
    log.info("before")
    writer.flush()
    path.rename(tmp_path / "worker.log.1")
    log.info("after")
    writer.flush()
    assert path.read_text() == "after\n"


def test_json_lines_have_time_level_logger_and_message() -> None:
    record = logging.LogRecord("headgate.x", logging.INFO, "", 0, "%s\nis here", ("one",), None)
    record.created = 1_764_460_800.25
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "2025-11-30T00:00:00.250+00:00",
        "level": "INFO",
        "logger": "headgate.x",
        "message": "one\nis here",
    }


def test_json_lines_of_errors_have_the_traceback_on_the_same_line() -> None:
    try:
        raise ValueError("wrong")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("headgate.x", logging.ERROR, "", 0, "it failed", (), info)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: wrong")


def test_install_takes_the_place_of_the_handlers_that_celery_made(stream: Stuck) -> None:
    root = logger_of(logging.StreamHandler(stream))
    install(root, "json")
    [writer] = root.handlers
    root.warning("told")
    writer.flush()
    assert json.loads(stream.getvalue())["message"] == "told"


def test_a_signal_that_interrupts_a_call_leaves_the_log_usable_for_all_threads(
    stream: Stuck,
) -> None:
    class Interrupted(SystemExit):
        pass

    left: list[int] = []

    def interrupt(_number: int, _frame: object) -> None:
        if left:
            raise Interrupted(left.pop())

    writer = LogWriter(logging.StreamHandler(stream))
    log = logger_of(writer)
    log.propagate = False  # the handlers of pytest have locks
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for n in range(3000):
            signal.setitimer(signal.ITIMER_REAL, (n % 100 + 1) / 1e6, 0.001)
            with suppress(Interrupted):
                left.append(n)
                while left:
                    log.warning("line %d", n)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        log.propagate = True
    other = threading.Thread(target=lambda: log.warning("from another thread"), daemon=True)
    other.start()
    other.join(30)
    assert not other.is_alive()
    writer.flush()
    assert stream.getvalue().endswith("from another thread\n")
