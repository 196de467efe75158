"""JSON travels with whole numbers of any size."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.errors import InvalidRequest
from headgate.shared.job.encoding import dumps, has_large_number, json_bytes, loads

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**40), 10**40) | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_what_is_written_is_read_again(value: Any) -> None:
    written = json_bytes(value)
    assert loads(written) == loads(written.decode()) == value
    assert written == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() or (
        loads(written) == json.loads(json.dumps(value))
    )


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64 - 1, 2**64, 10**40, -(10**40)])
def test_a_whole_number_keeps_all_its_digits(number: int) -> None:
    raw = f'{{"a":[{number},1.0],"b":"{number}"}}'.encode()
    assert dumps(loads(raw)) == raw
    assert has_large_number(loads(raw)) is not (-(2**63) <= number < 2**64)


def test_a_number_that_no_reader_takes_is_refused_where_it_is_written() -> None:
    most = 10**308 - 1
    assert loads(json_bytes([most, -most])) == [most, -most]
    for number in (10**308, -(10**308), 10**5000):
        with pytest.raises(InvalidRequest, match="more than 308 digits"):
            json_bytes({"a": [number]})


def test_what_is_no_json_stays_none() -> None:
    for raw in ("NaN", f"[{'1' * 30},]", f"{'1' * 30} x"):
        with pytest.raises(orjson.JSONDecodeError):
            loads(raw)
    with pytest.raises(TypeError):
        dumps({"a": [object(), 2**70]})
