"""The worker's log: written by a thread of its own in groups, as text or as JSON.

The loop and Celery's thread only put records into a deque. If the disk or the reader of standard
error is stuck, jobs go on: records over the bound are dropped, counted, and told later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from queue import Empty, SimpleQueue
from typing import Any

import orjson

GROUP_S = 0.05
"""Records of this time are written together. Each waking of the thread costs the loop 30 us."""

KEPT = 20_000
"""How many records may wait; some 20 MB. A worker at full rate logs 1,000 a second."""

JOBS = "headgate.jobs"
"""The logger of the many lines at jobs' ends. Warnings of all others are written at once."""

FLUSH_S = 2.0
"""How long the end of the process waits for the last records."""


class LogWriter(logging.Handler):
    """Writes with the stream and the form of another handler, in a thread of its own.

    The signal handler may raise in the main thread at any call. `emit` takes no lock of Python's
    own, for one that it left locked would stop all other threads that log.
    """

    def __init__(self, target: logging.StreamHandler[Any], *, kept: int = KEPT) -> None:
        super().__init__()
        self._target, self._kept = target, kept
        self._records: deque[logging.LogRecord] = deque()
        self._wake: SimpleQueue[bool] = SimpleQueue()
        """Wakes the thread; True if it shall write at once."""
        self._is_woken = self._is_writing = False
        self._dropped = self._told = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def createLock(self) -> None:  # noqa: N802  # the name in `logging`
        """Need no lock: a deque is safe, and a lock would make the loop wait for others."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Let the record be written soon; drop and count it if too many wait."""
        if len(self._records) >= self._kept:
            self._dropped += 1
            return
        self._records.append(record)
        at_once = record.levelno >= logging.WARNING and record.name != JOBS
        if at_once or not self._is_woken:
            self._is_woken = True
            self._wake.put(at_once)

    def flush(self) -> None:
        """Wait until all records so far are written, at most `FLUSH_S`."""
        until = time.monotonic() + FLUSH_S
        while (self._records or self._is_writing) and time.monotonic() < until:
            self._wake.put(True)
            time.sleep(0.005)

    def _run(self) -> None:
        while True:
            at_once, until = self._wake.get(), time.monotonic() + GROUP_S
            with suppress(Empty):
                while not at_once and (left_s := until - time.monotonic()) > 0:
                    at_once = self._wake.get(timeout=left_s)
            self._is_writing = True
            while not self._wake.empty():
                self._wake.get()
            # Only now: a wake of after this stays in the queue, and what came before is written.
            self._is_woken = False
            self._write_group()
            self._is_writing = False

    def _write_group(self) -> None:
        """Write what waits now in one piece; count it as dropped if that fails."""
        count, dropped = len(self._records), self._dropped - self._told
        records = [self._records.popleft() for _ in range(count)]
        if dropped:
            records.append(_notice(dropped))
        lines = [line for record in records if (line := self._line(record)) is not None]
        try:
            if isinstance(self._target, WatchedFileHandler):
                self._target.reopenIfNeeded()
            self._target.stream.write("".join(lines))
            self._target.stream.flush()
        except (OSError, ValueError):  # full, or closed by now
            self._dropped += count
        else:
            self._told += dropped

    def _line(self, record: logging.LogRecord) -> str | None:
        try:
            return self._target.format(record) + self._target.terminator
        except Exception:
            self._target.handleError(record)
            return None


def _notice(dropped: int) -> logging.LogRecord:
    words = "%d log lines were dropped: the log could not be written"
    return logging.LogRecord("headgate.log", logging.WARNING, __file__, 0, words, (dropped,), None)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        facts = getattr(record.msg, "fields", None)
        if callable(facts) and isinstance(found := facts(), Mapping):
            line["message"] = "job ended"
            line |= found
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode("utf-8")


def install(root: logging.Logger, form: str) -> None:
    """Let a thread write what the handlers of `root` wrote; `form` is "text" or "json"."""
    for handler in list(root.handlers):
        if isinstance(handler, logging.StreamHandler):
            if form == "json":
                handler.setFormatter(JsonFormatter())
            root.removeHandler(handler)
            root.addHandler(LogWriter(handler))
