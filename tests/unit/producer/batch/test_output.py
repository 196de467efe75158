"""The output of a batch: whole lines of one batch, written by one command."""

import os
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from headgate.producer.batch.formats import bad_line, output_line
from headgate.producer.batch.output import Output, OutputFull
from headgate.shared.errors import ErrorCode, WrongUse
from headgate.shared.job.result import ErrorReport, Result, Usage
from tests.support.vendor_answers import VENDOR_ANSWERS, VendorAnswer


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return an input file."""
    path = tmp_path / "in.jsonl"
    path.write_text("{}\n")
    return path


def line(number: int, batch_id: str = "b") -> bytes:
    """Return one line of output."""
    return bad_line(number, batch_id, f"line-{number}", "internal", "words")


def test_the_input_is_never_the_output_by_whatever_name(tmp_path: Path, source: Path) -> None:
    (tmp_path / "soft").symlink_to(source)
    (tmp_path / "hard").hardlink_to(source)
    for name in ("in.jsonl", "soft", "hard"):
        with pytest.raises(WrongUse, match="the input itself"):
            Output.open(tmp_path / name, source, "overwrite")
    assert source.read_text() == "{}\n"


def test_only_the_owner_may_read_a_new_output_and_an_old_one_keeps_its_mode(
    tmp_path: Path, source: Path
) -> None:
    old = tmp_path / "old"
    old.touch(0o644)
    old.chmod(0o644)
    before = os.umask(0)
    try:
        for name, mode in (("new", 0o600), ("old", 0o644)):
            Output.open(tmp_path / name, source, "refuse").close()
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_folder_a_missing_folder_and_a_full_file_are_refused(
    tmp_path: Path, source: Path
) -> None:
    full = tmp_path / "full"
    full.write_text("x")
    for path, fault in (
        (tmp_path, "folder"),
        (tmp_path / "no" / "out", "no folder"),
        (full, "--resume"),
    ):
        with pytest.raises(WrongUse, match=fault):
            Output.open(path, source, "refuse")
    assert full.read_text() == "x"


def test_an_empty_file_may_be_written_and_a_full_one_replaced(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "out"
    path.touch()
    Output.open(path, source, "refuse").close()
    path.write_text("old")
    Output.open(path, source, "overwrite").close()
    assert path.read_text() == ""


def test_a_second_writer_is_refused(tmp_path: Path, source: Path) -> None:
    first = Output.open(tmp_path / "out", source, "refuse")
    with pytest.raises(WrongUse, match="another command"):
        Output.open(tmp_path / "out", source, "resume")
    first.close()
    Output.open(tmp_path / "out", source, "resume").close()


@pytest.mark.parametrize("torn", [b"", b'{"id": "x', b'{"id": "batch_req_1", "headgate": {"li'])
def test_an_incomplete_last_line_is_cut_off_on_resume(
    tmp_path: Path, source: Path, torn: bytes
) -> None:
    path = tmp_path / "out"
    path.write_bytes(line(1) + line(3) + torn)
    output = Output.open(path, source, "resume")
    assert output.read_written("b") == {1: False, 3: False}
    output.append([line(2)])
    output.close()
    assert path.read_bytes() == line(1) + line(3) + line(2)


@pytest.mark.parametrize("strange", [b"words\n", line(2, "another batch"), b"{}\n", b"\n"])
def test_a_file_with_other_content_is_not_changed(
    tmp_path: Path, source: Path, strange: bytes
) -> None:
    path = tmp_path / "out"
    path.write_bytes(line(1) + strange)
    output = Output.open(path, source, "resume")
    with pytest.raises(WrongUse, match="line 2 is not of this batch"):
        output.read_written("b")
    output.close()
    assert path.read_bytes() == line(1) + strange


@pytest.fixture
def _small_disk() -> Iterator[int]:
    """Limit the size of files of this process in bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, heard)


@pytest.mark.usefixtures("_small_disk")
def test_a_full_disk_leaves_whole_lines_and_says_what_to_do(tmp_path: Path, source: Path) -> None:
    output = Output.open(tmp_path / "out", source, "refuse")
    output.append([line(1), line(2)])
    whole = (tmp_path / "out").read_bytes()
    with pytest.raises(OutputFull, match="--resume"):
        output.append([line(n) for n in range(3, 20)])
    output.close()
    assert (tmp_path / "out").read_bytes() == whole == line(1) + line(2)


def test_a_command_without_resume_never_advises_it(tmp_path: Path, source: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(WrongUse, match="--overwrite") as refused:
        Output.open(tmp_path / "out", source, "refuse", resumable=False)
    output = Output.open(Path("/dev/full"), source, "overwrite", resumable=False)
    with pytest.raises(OutputFull, match="--overwrite") as full:
        output.append([line(1)])
    output.close()
    assert "--resume" not in f"{refused.value} {full.value}"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device of Linux")
def test_a_full_device_is_reported(source: Path) -> None:
    output = Output.open(Path("/dev/full"), source, "refuse")
    with pytest.raises(OutputFull, match="No space left"):
        output.append([line(1)])
    output.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_without_write_permission_is_refused(tmp_path: Path, source: Path) -> None:
    path = tmp_path / "out"
    path.touch(mode=0o400)
    with pytest.raises(WrongUse, match="Permission denied"):
        Output.open(path, source, "refuse")


def test_an_answer_has_openais_format_and_our_fields() -> None:
    result = Result(
        id="019aa000-0000-7000-8000-000000000000", status="succeeded", model="gpt-4o",
        content="hi", model_used="gpt-4o-mini", finish_reason="stop", attempts=2, fallback=True,
        usage=Usage(12, 3, 0, 34, 5), cost_usd="0.1",
    )  # fmt: skip
    written = orjson.loads(output_line(7, "b", "mine", result.as_json()))
    assert written["id"] == f"batch_req_{result.id}"
    assert written["custom_id"] == "mine"
    assert written["error"] is None
    assert written["response"]["status_code"] == 200
    body = written["response"]["body"]
    assert body["object"] == "chat.completion"
    assert body["model"] == "gpt-4o-mini"
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "hi", "refusal": None}
    assert body["usage"]["total_tokens"] == 46
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    ours = written["headgate"]
    assert (ours["line"], ours["job_id"], ours["cost_usd"]) == (7, result.id, "0.1")
    assert (ours["attempts"], ours["fallback"], ours["cached"]) == (2, True, None)


def test_a_refused_line_has_our_fields_like_the_others() -> None:
    ours = orjson.loads(line(7))["headgate"]
    assert ours == {
        "line": 7, "batch_id": "b", "job_id": None, "model_used": None, "cost_usd": "0",
        "cached": None, "attempts": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "message"),
    [("context_length", "line 7: too long"), ("overloaded", "too long")],
)
def test_a_fault_of_the_request_names_its_line(code: ErrorCode, message: str) -> None:
    report = ErrorReport(code, "too long", False)
    failed = Result("019aa000-0000-7000-8000-000000000000", "failed", model="m", error=report)
    written = orjson.loads(output_line(7, "b", "c", failed.as_json()))
    assert written["error"] == {"code": code, "message": message}


def test_an_embedding_has_openais_format() -> None:
    result = Result(
        id="019aa000-0000-7000-8000-000000000000", status="succeeded", model="m",
        embeddings=[[0.5], [1.0]], usage=Usage(3),
    )  # fmt: skip
    body = orjson.loads(output_line(1, "b", "c", result.as_json()))["response"]["body"]
    assert [row["embedding"] for row in body["data"]] == [[0.5], [1.0]]
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def line_of(**fields: Any) -> dict[str, Any]:
    """Return the line of output of a job that succeeded with this answer."""
    result = Result(
        id="019aa000-0000-7000-8000-000000000000", status="succeeded", model="gpt-4o-mini",
        model_used="m", usage=Usage(12, 3, 0, 34, 5), **fields,
    )  # fmt: skip
    line: dict[str, Any] = orjson.loads(output_line(1, "b", "c", result.as_json()))
    return line


@pytest.mark.parametrize("sent", VENDOR_ANSWERS, ids=lambda sent: sent.feature)
def test_a_line_has_what_the_vendor_sent(sent: VendorAnswer) -> None:
    line = line_of(content=sent.content, finish_reason=sent.finish_reason, message=sent.body)
    body, ours = line["response"]["body"], line["headgate"]
    if sent.dialect == "openai":
        assert orjson.dumps(body) == orjson.dumps(sent.body)
        assert "message" not in ours
    else:
        assert orjson.dumps(ours["message"]) == orjson.dumps(sent.body)
        assert body["choices"][0]["message"]["content"] == sent.content
        paused = sent.finish_reason == "pause_turn"  # OpenAI's form has no such reason
        assert body["choices"][0]["finish_reason"] == ("stop" if paused else sent.finish_reason)
    assert ours["usage"]["output_tokens"] == 34
    assert ours["model_used"] == "m"


def test_what_a_vendor_leaves_out_of_openais_format_is_added() -> None:
    sent = {"choices": [{"message": {"content": "x"}}], "timings": {"ms": 3}}
    body = line_of(content="x", message=sent)["response"]["body"]
    assert body == {
        **sent, "id": "chatcmpl-019aa000-0000-7000-8000-000000000000", "object": "chat.completion",
        "created": body["created"], "model": "m", "usage": body["usage"],
    }  # fmt: skip
    assert body["usage"]["total_tokens"] == 46


def test_the_vectors_are_put_back_into_the_rows_of_the_vendor() -> None:
    rows = [{"index": 1, "new": "b"}, {"index": 0, "new": "a"}]
    message = {"object": "list", "data": rows, "model": "e-3", "usage": {"total_tokens": 4}}
    body = line_of(embeddings=[[0.5], [1.0]], message=message)["response"]["body"]
    assert body["data"] == [
        {"index": 1, "new": "b", "embedding": [1.0]}, {"index": 0, "new": "a", "embedding": [0.5]},
    ]  # fmt: skip
    assert body | {"data": rows} == message


def test_the_official_client_can_read_the_lines() -> None:
    from openai.types import CreateEmbeddingResponse
    from openai.types.chat import ChatCompletion

    chat = Result(
        id="019aa000-0000-7000-8000-000000000000", status="succeeded", model="m", content="x",
        finish_reason="stop",
    )  # fmt: skip
    vector = Result(
        id="019aa000-0000-7000-8000-000000000000", status="succeeded", model="m",
        embeddings=[[0.5]],
    )  # fmt: skip
    for form, result in ((ChatCompletion, chat), (CreateEmbeddingResponse, vector)):
        line = orjson.loads(output_line(1, "b", "c", result.as_json()))
        form.model_validate(line["response"]["body"])
