"""Reads the input of a batch line by line, however large or broken it is.

Each line that is not blank becomes an InputLine (valid so far) or a BadLine (with its fault). A
broken line never stops the lines after it. The same file gives the same lines each time.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from headgate.producer.batch import custom_id
from headgate.producer.batch.formats import submit_fields
from headgate.producer.batch.other_formats import HEAD_BYTES, other_format
from headgate.producer.batch.samples import SAMPLED_LINES, place_of, take_samples
from headgate.producer.submit.defaults import embeds
from headgate.producer.submit.prepare import refuse_samples
from headgate.shared.errors import ErrorCode, InvalidRequest, WrongUse
from headgate.shared.job.encoding import MAX_REQUEST_BYTES, loads

_CHUNK_BYTES = 1024 * 1024
_UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class InputLine:
    """A sample of a line that can be submitted; `fields`: the fields of the request."""

    number: int
    custom_id: str
    fields: dict[str, Any]
    sample: int = 1

    @property
    def place(self) -> int:
        """The number by which its batch knows the job."""
        return place_of(self.number, self.sample)


@dataclass(frozen=True, slots=True)
class BadLine:
    """A sample of a line that is no valid request; `message` names the line and the fault."""

    number: int
    custom_id: str
    code: ErrorCode
    message: str
    sample: int = 1

    @property
    def place(self) -> int:
        """The number by which its batch knows the job that it did not become."""
        return place_of(self.number, self.sample)


@dataclass(frozen=True, slots=True)
class InputSummary:
    """Facts about a whole input file.

    `lines`: how many lines of output it gives, one for each sample of a line that is not blank.
    """

    path: Path
    sha256: str
    lines: int


def scan(path: Path, samples: int | None = None) -> InputSummary:
    """Read the whole input once; raise WrongUse if it is no file of lines.

    `samples`: how many jobs to make of a line that does not say it; None: one.
    """
    digest = hashlib.sha256()
    if str(path) == "-":
        remedy = "standard input cannot be read twice; save it to a file and name the file"
        raise WrongUse("input", "-", remedy)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise WrongUse("input", str(path), "this is no file; name a file of JSON lines")
        with path.open("rb") as file:
            if what := other_format(str(path), file.read(HEAD_BYTES)):
                raise WrongUse("input", str(path), what)
            file.seek(0)
            filled = _read_filled(file, digest)
            lines = sum(_samples_of(number, raw, samples or 1) for number, raw in filled)
    except OSError as error:
        raise WrongUse("input", str(path), f"cannot be read: {error.strerror}") from error
    if not lines:
        raise WrongUse("input", str(path), "has no lines; write one JSON object on each line")
    return InputSummary(path, digest.hexdigest(), lines)


def read(path: Path, defaults: dict[str, Any], sha256: str) -> Iterator[InputLine | BadLine]:
    """Yield each sample of each line that is not blank.

    Raise WrongUse at the end if the file has changed. `defaults`: submit fields for lines without
    them; its webhook is that of the batch. `sha256`: the digest that `scan` found.
    """
    defaults = {name: value for name, value in defaults.items() if name != "webhook_url"}
    digest = hashlib.sha256()
    first_of: dict[str, int] = {}
    with path.open("rb") as file:
        for number, raw in _read_filled(file, digest):
            for line in _parse(number, raw, defaults):
                first = first_of.setdefault(line.custom_id, number)
                if first == number:
                    yield line
                    continue
                given = custom_id.as_given(line.custom_id)
                message = f"line {number}: custom_id: {given!r} is on line {first} too"
                yield BadLine(number, line.custom_id, "invalid_request", message, line.sample)
    if digest.hexdigest() != sha256:
        raise WrongUse("input", os.fspath(path), "changed while it was read; use a copy")


def _parse(
    number: int, raw: bytes | None, defaults: dict[str, Any]
) -> list[InputLine] | list[BadLine]:
    """Return the samples of a line; as many as `_samples_of` says."""
    fields = dict(defaults)
    samples = fields.pop("samples", 1)
    own_id = f"line-{number}"
    try:
        parsed = _parse_object(raw)
        own_id = _custom_id(parsed) or own_id
        samples = take_samples(parsed, samples)
        fields = submit_fields(parsed, fields)
        refuse_samples(samples, embeds(fields))
    except InvalidRequest as error:
        message = f"line {number}: {error}"
        return [BadLine(number, name, error.code, message, sample)
                for name, sample in _ids(own_id, samples)]  # fmt: skip
    return [InputLine(number, name, fields, sample) for name, sample in _ids(own_id, samples)]


def _ids(own_id: str, samples: int) -> list[tuple[str, int]]:
    """Return custom_id and number of each sample; only of several is the number in the id."""
    if samples == 1:
        return [(own_id, 1)]
    return [(f"{own_id}#{sample}", sample) for sample in range(1, samples + 1)]


def _samples_of(number: int, raw: bytes | None, default: int) -> int:
    """Return how many samples `_parse` makes of the line, without looking at the rest of it."""
    samples = default
    if raw is not None and (b'"samples"' in raw or b"\\u" in raw):
        with suppress(InvalidRequest):
            parsed = _parse_object(raw)
            _custom_id(parsed)
            samples = take_samples(parsed, default)
    if samples > 1 and number >= SAMPLED_LINES:
        remedy = f"only lines below {SAMPLED_LINES} can have samples; split the file"
        raise WrongUse("samples", f"line {number}", remedy)
    return samples


def _parse_object(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        remedy = "shorten the request; the limit is 10 MB"
        raise InvalidRequest("length", f"over {MAX_REQUEST_BYTES} bytes", remedy)
    if b"\0" in raw:
        remedy = r"is a raw NUL byte; write \u0000 if you mean it"
        raise InvalidRequest("byte", raw.index(b"\0") + 1, remedy)
    try:
        parsed = loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest("JSON", _excerpt(raw), _fault(raw, error)) from None
    if not isinstance(parsed, dict):
        raise InvalidRequest("JSON", parsed, 'write an object, such as {"prompt": "..."}')
    return parsed


def _fault(raw: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as fault:
        return f"byte {fault.start + 1} is not UTF-8"
    if number := _NO_NUMBER.search(raw.decode(), max(0, error.pos - len("-Infinity"))):
        return f"{number[1]} is no JSON; write null or a number (column {number.start(1) + 1})"
    return f"{error.msg} (column {error.colno})"


_NO_NUMBER = re.compile(r"(?<=[:\[,\s])(NaN|-?Infinity)\b")
"""What Python's json and pandas write for what is no number."""


def _excerpt(raw: bytes) -> str:
    return raw[:60].decode("utf-8", "replace")


def _custom_id(parsed: dict[str, Any]) -> str | None:
    given = parsed.get("custom_id")
    return None if given is None else custom_id.on_record(given)


def _read_filled(file: BinaryIO, digest: hashlib._Hash) -> Iterator[tuple[int, bytes | None]]:
    """Yield number and bytes of each line that is not blank; None for a line that is too long."""
    number = 0
    while raw := file.readline(MAX_REQUEST_BYTES + 2):
        number += 1
        digest.update(raw)
        if not raw.endswith(b"\n") and len(raw) == MAX_REQUEST_BYTES + 2:
            while (rest := file.readline(_CHUNK_BYTES)) and not rest.endswith(b"\n"):
                digest.update(rest)
            digest.update(rest)
            yield number, None
            continue
        if number == 1:
            raw = raw.removeprefix(_UTF8_BOM)
        raw = raw.strip(b" \t\r\n")
        if raw:
            yield number, raw
