"""The input of a batch: every broken line is reported with its fault, and the others are read."""

import hashlib
from pathlib import Path

import pytest

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
    "NaN": (b'{"prompt": "x", "deadline_s": NaN}', "unexpected character"),
    "custom_id of another type": (b'{"custom_id": 5, "prompt": "x"}', "custom_id: 5"),
    "empty custom_id": (b'{"custom_id": "", "prompt": "x"}', "custom_id"),
    "another method": (b'{"method": "GET", "url": "/v1/chat/completions", "body": {}}', "POST"),
    "another url": (b'{"method": "POST", "url": "/v1/images", "body": {}}', "url"),
    "no url": (b'{"method": "POST", "body": {"messages": []}}', "url"),
    "body of another type": (b'{"url": "/v1/chat/completions", "body": 1}', "body: 1"),
    "no messages": (b'{"url": "/v1/chat/completions", "body": {"model": "m"}}', "body.messages"),
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
        ("{}\n".encode("utf-16"), "UTF-16"),
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
