"""Recognises inputs that are no JSON lines, so that the file is refused once, with the way on.

A single bad line is not meant here: it gets an error line, and the lines after it are read.
"""

from __future__ import annotations

import re
from shlex import quote

import orjson

HEAD_BYTES = 64 * 1024
"""How much of a file is looked at."""

_LOOKED_AT = 5
"""How many lines that are not blank decide whether the file is a table or plain text."""

_MARKS = (
    (b"\x1f\x8b", "is compressed with gzip; unpack it first: gunzip -k {file}"),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard; unpack it first: zstd -dk {file}"),
    (b"\xfd7zXZ\x00", "is compressed with xz; unpack it first: xz -dk {file}"),
    (b"BZh", "is compressed with bzip2; unpack it first: bzip2 -dk {file}"),
    (b"PK\x03\x04", "is a ZIP archive or an Excel file; unpack it, or export JSON lines"),
    (b"PAR1", "is a Parquet file; export JSON lines"),
)  # fmt: skip

_UTF16 = "is UTF-16; save it as UTF-8: iconv -f {code} -t UTF-8 {file} > lines.jsonl"
_LOADED = "[print(json.dumps(r)) for r in {rows}]"
_SCRIPT = "{what}; make it one: python -c '{code}' < {file} > lines.jsonl"
_FORM = 'but an input has a JSON object on each line, such as {"prompt": "..."}'


def other_format(name: str, head: bytes) -> str | None:
    """Return what the file is and what to do, if its first bytes show that it is no JSON lines."""
    file = quote(name)
    for mark, remedy in _MARKS:
        if head.startswith(mark):
            return remedy.format(file=file)
    if code := _utf16(head):
        return _UTF16.format(code=code, file=file)
    lines = [line for raw in head.split(b"\n") if (line := raw.removeprefix(_BOM).strip())]
    if not lines:
        return None
    if lines[0] == b"{":
        code = "import json, sys; print(json.dumps(json.load(sys.stdin)))"
        return _scripted("has its object on several lines", code, file)
    if _is_array(lines):
        code = "import json, sys; " + _LOADED.format(rows="json.load(sys.stdin)")
        return _scripted("is one JSON array", code, file)
    return _table_or_text(lines[:_LOOKED_AT], file)


_BOM = b"\xef\xbb\xbf"


def _scripted(what: str, code: str, file: str) -> str:
    return _SCRIPT.format(what=f"{what}, {_FORM}", code=code, file=file)


def _utf16(head: bytes) -> str | None:
    """Return the encoding by its mark, or by the zero bytes that Latin letters have in it."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    even, odd = head[:1024:2], head[1:1024:2]
    if len(odd) < 4:
        return None
    if odd.count(0) > 0.4 * len(odd) and not even.count(0):
        return "UTF-16LE"
    return "UTF-16BE" if even.count(0) > 0.4 * len(even) and not odd.count(0) else None


def _is_array(lines: list[bytes]) -> bool:
    """Return whether the first line begins an array of objects that is not a line of its own."""
    first = lines[0]
    if not re.match(rb"\[\s*(\{|$)", first):
        return False
    return not (_is_json(first) and any(line.startswith(b"{") for line in lines[1:2]))


def _table_or_text(lines: list[bytes], file: str) -> str | None:
    """Return what to do with a table or plain text; None unless all of the lines are no JSON."""
    if len(lines) < 2 or any(line.startswith((b"{", b"[")) or _is_json(line) for line in lines):
        return None
    if any(mark in lines[0] for mark in (b",", b";", b"\t")):
        code = "import csv, json, sys; " + _LOADED.format(rows="csv.DictReader(sys.stdin)")
        return _scripted("looks like CSV", code, file)
    code = 'import json, sys; [print(json.dumps({"prompt": r.strip()})) for r in sys.stdin]'
    return _scripted("is plain text", code, file)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
