"""Samples of a batch's lines: their numbers, their names, and how many there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.producer.batch.formats import bad_line, output_line
from headgate.producer.batch.input import BadLine, InputLine, read, scan
from headgate.producer.batch.output import Output
from headgate.producer.batch.samples import SAMPLED_LINES, line_and_sample, place_of
from headgate.producer.cli.terminal import options
from headgate.shared.job.request import MAX_SAMPLES
from headgate.shared.job.result import Result

NUMBERS, SAMPLES = st.integers(1, SAMPLED_LINES - 1), st.integers(1, MAX_SAMPLES)


@given(NUMBERS, SAMPLES)
def test_a_place_says_line_and_sample(number: int, sample: int) -> None:
    place = place_of(number, sample)
    assert -(2**31) < place < 2**31
    assert line_and_sample(place) == (number, sample)
    assert (place == number) == (sample == 1)


@given(st.sets(st.tuples(NUMBERS, SAMPLES)))
def test_no_two_samples_have_one_place(pairs: set[tuple[int, int]]) -> None:
    assert len({place_of(*pair) for pair in pairs}) == len(pairs)


def test_a_batch_without_samples_may_have_more_lines() -> None:
    assert place_of(2**31 - 1, 1) == 2**31 - 1
    assert line_and_sample(2**31 - 1) == (2**31 - 1, 1)


def items_of(
    path: Path, *lines: Any, samples: int | None = None
) -> list[InputLine | BadLine]:  # fmt: skip
    """Return what the lines are read as, after the scan has counted as many."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in lines]
    path.write_text("\n".join(texts))
    summary = scan(path, samples)
    defaults = {} if samples is None else {"samples": samples}
    found = list(read(path, defaults, summary.sha256))
    assert summary.lines == len(found)
    return found


def test_each_sample_is_an_item_with_an_id_of_its_own(tmp_path: Path) -> None:
    found = items_of(
        tmp_path / "in",
        {"custom_id": "a", "prompt": "x", "samples": 3},
        {"prompt": "y"},
        {"custom_id": "c", "prompt": "z", "samples": 1},
    )
    assert [(one.custom_id, one.number, one.sample) for one in found] == [
        ("a#1", 1, 1), ("a#2", 1, 2), ("a#3", 1, 3), ("line-2", 2, 1), ("c", 3, 1),
    ]  # fmt: skip
    assert [one.fields for one in found if isinstance(one, InputLine)] == [
        {"prompt": "x"}, {"prompt": "x"}, {"prompt": "x"}, {"prompt": "y"}, {"prompt": "z"},
    ]  # fmt: skip


def test_the_option_is_for_lines_that_do_not_say_it(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "x"}], "model": "gpt-4o-mini"}
    url = "/v1/chat/completions"
    found = items_of(
        tmp_path / "in",
        {"prompt": "x", "samples": 2},
        {"prompt": "y", "samples": None},
        {"custom_id": "o", "url": url, "body": chat, "samples": 1},
        {"custom_id": "b", "url": url, "body": {**chat, "samples": 2}},
        '{"prompt": "z", "sample\\u0073": 1}',
        samples=4,
    )
    by_line = [sum(one.number == number for one in found) for number in range(1, 6)]
    assert by_line == [2, 4, 1, 2, 1]
    assert not any(isinstance(one, BadLine) for one in found)
    assert all("samples" not in one.fields.get("params", {}) for one in found)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("line", "many", "fault"),
    [
        ("{broken", 3, "JSON"),
        ({"prompt": "x", "samples": 0}, 3, "samples: 0: give a whole number from 1 to 128"),
        ({"prompt": "x", "samples": "2"}, 3, "samples"),
        ({"prompt": "x", "custom_id": 5.5, "samples": 2}, 3, "custom_id"),
        ({"url": "/v1/nope", "body": {}, "samples": 2}, 2, "url"),
        ({"input": "x", "model": "mistral-embed"}, 3, "an embedding is always the same"),
    ],
)
def test_a_bad_line_is_an_error_for_each_of_its_samples(
    tmp_path: Path, line: Any, many: int, fault: str
) -> None:
    found = items_of(tmp_path / "in", line, {"prompt": "x", "samples": 1}, samples=3)
    bad = [one for one in found if isinstance(one, BadLine)]
    assert [one.sample for one in bad] == list(range(1, many + 1))
    assert all(fault in one.message for one in bad)
    assert len({one.custom_id for one in found}) == len({one.place for one in found}) == many + 1


def test_an_id_that_another_lines_sample_has_is_refused(tmp_path: Path) -> None:
    found = items_of(
        tmp_path / "in",
        {"custom_id": "a", "prompt": "x", "samples": 2},
        {"custom_id": "a#2", "prompt": "y"},
        {"custom_id": "a", "prompt": "z"},
    )
    assert [type(one) for one in found] == [InputLine, InputLine, BadLine, InputLine]


def test_an_output_is_read_back_by_line_and_sample(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_text("{}\n")
    places = {place_of(number, sample): sample != 2 for number in (1, 2) for sample in (1, 2, 9)}
    output = Output.open(tmp_path / "out", source, "refuse")
    for place, answered in places.items():
        result = Result("0192", "succeeded", "m", content="four").as_json()
        line = output_line(place, "b", "x", result)
        output.append([line if answered else bad_line(place, "b", "x", "internal", "w")])
    assert output.read_written("b") == places
    output.close()
    ids = [orjson.loads(line)["id"] for line in (tmp_path / "out").read_bytes().splitlines()]
    assert ids[1] == "batch_req_b_1_2"
    ours = [orjson.loads(line)["headgate"] for line in (tmp_path / "out").read_bytes().splitlines()]
    assert [one.get("sample") for one in ours] == [None, 2, 9] * 2


def test_the_option_allows_as_many_samples_as_a_request() -> None:
    assert options.MAX_SAMPLES == MAX_SAMPLES
