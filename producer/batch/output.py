"""The output file of a batch: it holds whole lines only, whatever interrupts the writing.

Answers may be private, so only its owner may read a file that is created here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Container
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

import orjson

from headgate.producer.batch.samples import place_of
from headgate.shared.errors import HeadgateError, WrongUse

FSYNC_EVERY_S = 1.0
_CHUNK_BYTES = 1024 * 1024

Exists = Literal["refuse", "resume", "overwrite"]


class OutputFull(HeadgateError):
    """A result could not be written to `path`; every result stays in the database."""

    def __init__(self, path: Path, reason: str, option: str) -> None:
        super().__init__(
            f"{path} cannot be written any more: {reason}; no answer is lost: "
            f"free some space, then run the command again with {option}"
        )
        self.path = path


def path_on_record(path: Path) -> str:
    """Return the path as the database stores it: absolute, links resolved, valid UTF-8."""
    return str(path.resolve()).encode("utf-8", "backslashreplace").decode()


class Output:
    """An open output file, locked against a second writer; `append` writes all or nothing."""

    def __init__(self, path: Path, fd: int, *, is_file: bool, resumable: bool) -> None:
        self.path = path
        self._resumable = resumable
        self._fd = fd
        self._is_file = is_file
        self._size = os.fstat(fd).st_size if is_file else 0
        self._synced_at = time.monotonic()
        self.written_usd = Decimal(0)
        self.bad_example: str | None = None

    @property
    def empty(self) -> bool:
        """True while nothing has been written."""
        return self._size == 0

    @classmethod
    def open(
        cls, path: Path, input_path: Path, exists: Exists, *, resumable: bool = True
    ) -> Output:
        """Open and lock the file, or create it; raise WrongUse if it must not be used.

        `exists`: what to do with a file that has content. `resumable`: whether the command has
        --resume, so that errors can advise it.
        """
        if str(path) == "-":
            raise WrongUse("output", "-", "results cannot go to standard output; name a file")
        if path.is_dir():
            raise WrongUse("output", str(path), "this is a folder; name a file")
        if not path.parent.is_dir():
            raise WrongUse("output", str(path), f"there is no folder {path.parent}; create it")
        if path.exists() and input_path.exists() and path.samefile(input_path):
            raise WrongUse("output", str(path), "is the input itself; name another file")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        except OSError as error:
            raise WrongUse("output", str(path), f"cannot be written: {error.strerror}") from error
        output = cls(path, fd, is_file=is_file, resumable=resumable)
        try:
            output._lock(exists)
        except BaseException:
            output.close()
            raise
        return output

    def _lock(self, exists: Exists) -> None:
        if not self._is_file:
            if exists == "resume":
                raise WrongUse("output", str(self.path), "--resume needs an output that is a file")
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WrongUse("output", str(self.path), "another command writes to it") from None
        if exists == "overwrite":
            os.ftruncate(self._fd, 0)
            self._size = 0
        elif exists == "refuse" and not self.empty:
            resume = "continue it with --resume, or " if self._resumable else ""
            raise WrongUse("output", str(self.path), f"exists; {resume}replace it with --overwrite")

    def read_written(self, batch_id: str) -> dict[int, bool]:
        """Return the places of the lines of output, and whether each is an answer.

        `written_usd` is then the sum of their known costs, `bad_example` the fault of a line that
        became no job. Cut off an incomplete last line (a kill, a full disk). Raise WrongUse if the
        file holds lines that are not of this batch.
        """
        found: dict[int, bool] = {}
        whole = 0
        with os.fdopen(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for n, raw in enumerate(file, start=1):
                try:
                    if not raw.endswith(b"\n"):
                        break
                    line = orjson.loads(raw)
                    if line["headgate"]["batch_id"] != batch_id:
                        raise ValueError
                    ours, place = line["headgate"], _place_in(line)
                    found[place] = line["error"] is None
                    if line["error"] is not None and ours.get("job_id") is None:
                        self.bad_example = self.bad_example or line["error"]["message"]
                    self.written_usd += Decimal(ours.get("cost_usd") or 0)
                except (ValueError, KeyError, TypeError, InvalidOperation):
                    remedy = f"line {n} is not of this batch; name another output"
                    raise WrongUse("output", str(self.path), remedy) from None
                whole += len(raw)
        if whole != self._size:
            os.ftruncate(self._fd, whole)
            self._size = whole
        return found

    def keep_only(self, places: Container[int]) -> None:
        """Remove all lines but those of these places, all at once; raise WrongUse if it cannot.

        A copy takes the place of the file, so that a crash leaves the old or the new one.
        """
        target = self.path.resolve()
        copy = target.with_name(f".{target.name}.{os.getpid()}.new")
        try:
            fd = os.open(copy, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(fd, stat.S_IMODE(os.fstat(self._fd).st_mode))
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                size = _copy_lines(self._fd, fd, places)
                os.fsync(fd)
                copy.replace(target)
            except BaseException:
                os.close(fd)
                copy.unlink(missing_ok=True)
                raise
        except OSError as error:
            remedy = f"cannot be rewritten: {error.strerror}; name another output"
            raise WrongUse("output", str(self.path), remedy) from error
        self.close()
        self._fd, self._size = fd, size

    def append(self, lines: list[bytes]) -> None:
        """Write all lines, or none of them and raise OutputFull."""
        data = memoryview(b"".join(lines))
        start = self._size
        try:
            if self._is_file:
                os.lseek(self._fd, start, os.SEEK_SET)
            while data:
                data = data[os.write(self._fd, data[:_CHUNK_BYTES]) :]
            self._size = start + sum(map(len, lines))
            if time.monotonic() - self._synced_at > FSYNC_EVERY_S:
                self.sync()
        except BaseException as error:
            if self._is_file and self._size == start:
                os.ftruncate(self._fd, start)
            if isinstance(error, OSError):
                raise self._full(error) from error
            raise

    def sync(self) -> None:
        """Flush all lines to the disk, so that they survive a power cut; raise OutputFull."""
        self._synced_at = time.monotonic()
        if self._is_file:
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise self._full(error) from error

    def close(self) -> None:
        """Close and unlock the file; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _full(self, error: OSError) -> Exception:
        if error.errno == errno.EPIPE:
            return BrokenPipeError(errno.EPIPE, "the reader of the output has gone")
        option = "--resume" if self._resumable else "--overwrite"
        return OutputFull(self.path, error.strerror or str(error), option)


def _place_in(line: dict[str, Any]) -> int:
    """Return the place of a line of output."""
    ours = line["headgate"]
    return place_of(int(ours["line"]), int(ours.get("sample", 1)))


def _copy_lines(source: int, target: int, places: Container[int]) -> int:
    """Copy the lines of these places; return how many bytes they have."""
    size = 0
    with os.fdopen(os.dup(source), "rb") as lines, os.fdopen(os.dup(target), "wb") as copied:
        lines.seek(0)
        for raw in lines:
            if _place_in(orjson.loads(raw)) in places:
                size += copied.write(raw)
    return size
