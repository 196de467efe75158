"""The input of a batch: every broken line is reported with its fault, and the others are read."""

import bz2
import gzip
import hashlib
import json
import lzma
import subprocess
import sys
from pathlib import Path

import pytest

from headgate.producer.batch.formats import bad_line, output_line
from headgate.producer.batch.input import BadLine, InputLine, read, scan
from headgate.shared.errors import WrongUse

GOOD = b'{"prompt": "good"}'


def lines_of(path: Path, content: bytes) -> list[InputLine | BadLine]:
    """Return the lines that `content` is read as."""
    path.write_bytes(content)
    return list(read(path, {}, hashlib.sha256(content).hexdigest()))


BAD_LINES = {
    "broken JSON": (b'{"prompt": ', "unexpected end of data"),
    "not an object": (b"[1, 2]", "write an object"),
    "a bare text": (b'"hello"', "write an object"),
    "not UTF-8": (b'{"prompt": "\xff"}', "byte 13 is not UTF-8"),
    "raw NUL byte": (b'{"prompt": "a\x00b"}', "a raw NUL byte"),
    "lone surrogate": (rb'{"prompt": "\ud800"}', "surrogate"),
    "NaN": (
        b'{"prompt": "NaN: x", "deadline_s": NaN}',
        "NaN is no JSON; write null or a number (column 36)",
    ),
    "Infinity": (b'{"params": {"seed": -Infinity}}', "-Infinity is no JSON"),
    "custom_id of another type": (b'{"custom_id": 5.5, "prompt": "x"}', "custom_id: 5.5"),
    "custom_id true": (b'{"custom_id": true, "prompt": "x"}', "custom_id: True"),
    "custom_id like one on record": (
        b'{"custom_id": "\\u001f5", "prompt": "x"}',
        "without control characters",
    ),
    "empty custom_id": (b'{"custom_id": "", "prompt": "x"}', "custom_id"),
    "another method": (b'{"method": "GET", "url": "/v1/chat/completions", "body": {}}', "POST"),
    "another url": (b'{"method": "POST", "url": "/v1/images", "body": {}}', "url"),
    "no url": (b'{"method": "POST", "body": {"messages": []}}', "url"),
    "body of another type": (b'{"url": "/v1/chat/completions", "body": 1}', "body: 1"),
    "no messages": (b'{"url": "/v1/chat/completions", "body": {"model": "m"}}', "body.messages"),
    "no input": (b'{"url": "/v1/moderations", "body": {"messages": []}}', "body.input"),
    "stream": (
        b'{"url": "/v1/chat/completions", "body": {"messages": [{}], "stream": true}}',
        "cannot stream",
    ),
    "unknown key beside body": (
        b'{"url": "/v1/chat/completions", "body": {"messages": [{}]}, "nope": 1}',
        "nope: 1: unknown field",
    ),
    "over 10 MB": (b'{"prompt": "' + b"x" * 10_500_000 + b'"}', "10 MB"),
    "over 11 MB": (b'{"prompt": "' + b"x" * 11_600_000 + b'"}', "10 MB"),
}


@pytest.mark.parametrize(("raw", "fault"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_reported_with_its_fault_and_the_others_are_read(
    tmp_path: Path, raw: bytes, fault: str
) -> None:
    found = lines_of(tmp_path / "in", b"\n".join([GOOD, raw, GOOD]))
    assert [type(line) for line in found] == [InputLine, BadLine, InputLine]
    bad = found[1]
    assert isinstance(bad, BadLine)
    assert bad.number == 2
    assert bad.message.startswith("line 2: ")
    assert fault in bad.message
    assert bad.code == "invalid_request"
    assert len(bad.message) < 400


def test_an_escaped_nul_is_a_legal_part_of_a_text(tmp_path: Path) -> None:
    [line] = lines_of(tmp_path / "in", rb'{"prompt": "a\u0000b"}')
    assert isinstance(line, InputLine)
    assert line.fields == {"prompt": "a\0b"}


def test_blank_lines_byte_order_mark_and_crlf_are_no_part_of_the_lines(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n \t\n" + GOOD + b"\r\n"
    found = lines_of(tmp_path / "in", content)
    assert [line.number for line in found] == [1, 4]
    assert all(isinstance(line, InputLine) for line in found)


def test_a_custom_id_that_occurs_twice_is_refused_the_second_time(tmp_path: Path) -> None:
    one = b'{"custom_id": "a", "prompt": "x"}'
    found = lines_of(tmp_path / "in", b"\n".join([one, one]))
    assert isinstance(found[0], InputLine)
    assert isinstance(found[1], BadLine)
    assert "is on line 1 too" in found[1].message


def test_a_line_without_custom_id_is_named_by_its_number(
    tmp_path: Path,
) -> None:
    found = lines_of(tmp_path / "in", GOOD + b'\n{"custom_id": "line-1", "prompt": "x"}')
    assert [line.custom_id for line in found] == ["line-1", "line-1"]
    assert isinstance(found[1], BadLine)


def test_openais_format_becomes_submit_fields_and_params(
    tmp_path: Path,
) -> None:
    raw = (
        b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", '
        b'"body": {"model": "m",'
        b'"messages": [{"role": "user", "content": "hi"}], "user": "u", "max_tokens": 5,'
        b'"logit_bias": {"5": 1}, "stream": false}}'
    )
    [line] = lines_of(tmp_path / "in", raw)
    assert isinstance(line, InputLine)
    assert line.fields == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "user": "u",
        "params": {"user": "u", "max_tokens": 5, "logit_bias": {"5": 1}},
    }


def test_defaults_apply_to_lines_without_a_value(tmp_path: Path) -> None:
    content = (
        b'{"prompt": "x"}\n{"prompt": "x", "model": "own", "params": {"max_tokens": 9}}\n'
        b'{"input": "x"}\n'
    )
    path = tmp_path / "in"
    path.write_bytes(content)
    defaults = {"model": "m", "tenant": "t", "max_tokens": 5}
    found = [
        line.fields
        for line in read(path, defaults, hashlib.sha256(content).hexdigest())
        if isinstance(line, InputLine)
    ]
    assert found == [
        {"prompt": "x", "model": "m", "tenant": "t", "params": {"max_tokens": 5}},
        {"prompt": "x", "model": "own", "tenant": "t", "params": {"max_tokens": 9}},
        {"input": "x", "model": "m", "tenant": "t"},
    ]


def test_an_input_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(GOOD)
    with pytest.raises(WrongUse, match="changed while"):
        list(read(path, {}, "0" * 64))


def test_a_scan_counts_filled_lines_and_digests_every_byte(tmp_path: Path) -> None:
    content = GOOD + b"\n\n{broken\n" + b"x" * 11_000_000 + b"\n" + GOOD
    path = tmp_path / "in"
    path.write_bytes(content)
    found = scan(path)
    assert found.lines == 4
    assert found.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "has no lines"),
        (b"\n \n\r\n", "has no lines"),
        ("{}\n".encode("utf-16"), "UTF-16; save it as UTF-8: iconv -f UTF-16 "),
        (GOOD.decode().encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8 "),
        (GOOD.decode().encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8 "),
        (gzip.compress(GOOD, mtime=0), "compressed with gzip; unpack it first: gunzip -k "),
        (bz2.compress(GOOD), "bzip2 -dk "),
        (lzma.compress(GOOD), "xz -dk "),
        (b"PK\x03\x04\x14", "Excel"),
        (b"PAR1\x15", "Parquet"),
        (b"[" + GOOD + b"]", "one JSON array"),
        (b"\xef\xbb\xbf[\n  " + GOOD + b"\n]", "one JSON array"),
        (b'{\n  "prompt": "x"\n}\n', "object on several lines"),
        (b"prompt,model\nhello,gpt-4o\n", "looks like CSV"),
        (b'"prompt";"model"\n"hello";"gpt-4o"\n', "looks like CSV"),
        (b"Summarise Hamlet\nSummarise Macbeth\n", "is plain text"),
    ],
)
def test_a_file_that_cannot_be_an_input_is_refused(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    path = tmp_path / "in"
    path.write_bytes(content)
    with pytest.raises(WrongUse, match=fault):
        scan(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="no file"):
        scan(tmp_path)
    with pytest.raises(WrongUse, match="No such file"):
        scan(tmp_path / "missing")


@pytest.mark.parametrize(
    "first", [b"[1, 2]", b"[" + GOOD + b"]", b"no JSON", b"a,b", b'"hello"', b"{broken", b"5"]
)
def test_a_bad_first_line_does_not_refuse_the_file(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "in"
    path.write_bytes(first + b"\n" + GOOD)
    assert scan(path).lines == 2
    path.write_bytes(first if first != b"[" + GOOD + b"]" else b"5")
    assert scan(path).lines == 1


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b'[{"prompt": "a"},\n {"prompt": "b"}]', [{"prompt": "a"}, {"prompt": "b"}]),
        (b'{\n"prompt": "a"\n}', [{"prompt": "a"}]),
        (
            b"prompt,model\na,m\nb,m\n",
            [{"prompt": "a", "model": "m"}, {"prompt": "b", "model": "m"}],
        ),
        (b"a b\nc d\n", [{"prompt": "a b"}, {"prompt": "c d"}]),
    ],
)
def test_the_command_that_is_named_makes_lines_of_the_file(
    tmp_path: Path, content: bytes, lines: list[dict[str, str]]
) -> None:
    path = tmp_path / "it's in"
    path.write_bytes(content)
    with pytest.raises(WrongUse) as caught:
        scan(path)
    command = caught.value.remedy.partition("make it one: ")[2].replace("python", sys.executable, 1)
    subprocess.run(["/bin/sh", "-c", command], cwd=tmp_path, check=True)
    found = (tmp_path / "lines.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in found] == lines


def test_a_number_as_custom_id_comes_back_as_a_number(tmp_path: Path) -> None:
    raw = b'{"custom_id": 5, "prompt": "x"}\n{"custom_id": "5", "prompt": "x"}\n'
    raw += b'{"custom_id": 5, "prompt": "x"}\n{"custom_id": 7, "prompt": "x", "samples": 2}'
    found = lines_of(tmp_path / "in", raw)
    assert [type(line) for line in found] == [InputLine, InputLine, BadLine, InputLine, InputLine]
    result = {"id": "0190d7a2-0000-7000-8000-000000000000", "status": "failed", "model": "m"}
    ids = [json.loads(output_line(1, "b", line.custom_id, result))["custom_id"] for line in found]
    assert ids == [5, "5", 5, "7#1", "7#2"]
    bad = found[2]
    assert isinstance(bad, BadLine)
    assert bad.message == "line 3: custom_id: 5 is on line 1 too"
    written = json.loads(bad_line(3, "b", bad.custom_id, bad.code, bad.message))
    assert written["custom_id"] == 5
