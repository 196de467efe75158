"""The summary of a batch: why lines failed, who answered, and the next command."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headgate.producer.batch.summary import FailedExample, Summary
from headgate.producer.cli.terminal.batch_summary import describe, next_command
from tests import ROOT

WHOLE = Summary(
    batch_id="batch_1", lines=20_000, succeeded=20_000, failed=0, open=0, cost_usd="12.3456789",
    input_tokens=1_234_567, output_tokens=7, input_path=str(ROOT / "in.jsonl"),
    models={"gpt-4o": 19_000, "claude-haiku-4-5": 1_000},
)  # fmt: skip
OUT = str(ROOT / "my answers.jsonl")

TIMEOUT = {"timeout": FailedExample(7, None, "job-7", "too slow", retryable=True)}


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def lines(summary: Summary, output: str | None = None, bad: str | None = None) -> dict[str, str]:
    return {name: str(value) for name, value in describe(summary, output, bad)}


def test_the_files_the_batch_and_the_models_are_named() -> None:
    found = lines(WHOLE, OUT)
    assert (found["batch"], found["input"]) == ("batch_1", "in.jsonl")
    assert found["answers"] == "my answers.jsonl"
    assert found["succeeded"] == "20,000 of 20,000"
    assert found["models"] == "gpt-4o 19,000, claude-haiku-4-5 1,000"
    assert found["tokens"] == "1,234,567 in, 7 out"
    assert found["cost"] == "12.3456789 USD"
    many = replace(WHOLE, models={f"m{n}": 9 - n for n in range(9)})
    assert lines(many)["models"].endswith("m5 4, and 3 more")


def test_each_error_code_has_an_example() -> None:
    failed = replace(
        WHOLE, failed=4, failures={"timeout": 2, "rate_limited": 1}, bad_lines=1,
        examples={
            "rate_limited": FailedExample(7, "line-7", "job-7", "slow down"),
            "timeout": FailedExample(9, "mine", "job-9", "x" * 500),
        },
    )  # fmt: skip
    found = lines(failed, OUT, "line 3: prompt: '': give a text")
    assert found["failed"] == "4 (1 rate_limited, 1 refused line, 2 timeout)"
    assert found["  rate_limited"] == "line 7: slow down"
    assert found["  timeout"].startswith("line 9 (mine): xxx")
    assert len(found["  timeout"]) < 250
    assert found["  refused"] == "line 3: prompt: '': give a text"


@pytest.mark.parametrize(
    ("changed", "output", "command"),
    [
        ({}, OUT, None),
        ({"output_path": OUT}, None, None),
        ({}, None, "headgate batch fetch batch_1 -o answers.jsonl"),
        ({"open": 5}, None, "headgate batch fetch batch_1 --wait -o answers.jsonl"),
        ({"open": 5}, OUT, "headgate batch fetch batch_1 --wait -o 'my answers.jsonl' --overwrite"),
        ({"open": 5, "output_path": OUT}, None,
         "headgate batch run in.jsonl -o 'my answers.jsonl' --resume"),
        ({"failures": {"timeout": 1}, "failed": 1}, OUT,
         "headgate jobs --batch batch_1 --status failed"),
        ({"failures": {"timeout": 1}, "failed": 1, "examples": TIMEOUT}, None,
         "headgate retry --batch batch_1"),
        ({"failures": {"timeout": 1}, "failed": 1, "examples": TIMEOUT, "output_path": OUT}, OUT,
         "headgate batch run in.jsonl -o 'my answers.jsonl' --retry-failed"),
        ({"failures": {"deadline": 1}, "failed": 1}, OUT,
         "headgate jobs --batch batch_1 --status expired"),
        ({"bad_lines": 1, "failed": 1}, OUT, "grep '\"response\":null' 'my answers.jsonl'"),
    ],
)  # fmt: skip
def test_the_next_command_is_told(
    changed: dict[str, object], output: str | None, command: str | None
) -> None:
    assert next_command(replace(WHOLE, **changed), output) == command  # type: ignore[arg-type]
