"""Messages: whatever bytes come, the answer is a job or a reason; a reason quotes nothing."""

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.shared.broker import queues
from headgate.shared.errors import UnreadableMessage
from headgate.workers.delivery.message import read
from tests.support.poison import DEAD, HARMLESS
from tests.support.rig import envelope, stock_message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PARTS = ["body", "headers", "properties", "content-type", "content-encoding"]
HEADERS = ["id", "task", "timelimit", "retries", "eta", "expires", "compression", "argsrepr"]


def test_our_own_message_is_read() -> None:
    job = envelope(prompt='quotes " and \u0000 and \U0001f600')
    readable = read(queues.message(job, job.encode()))
    assert readable.body[0] == [json.loads(job.encode())]
    assert readable.headers["id"] == job.id
    assert readable.not_before_ms is None


def test_a_stock_message_is_read_without_its_description_of_the_arguments() -> None:
    message = stock_message("s1")
    message["headers"] |= {"argsrepr": "(secret,)", "kwargsrepr": "{secret}"}
    readable = read(json.dumps(message).encode())
    assert readable.body[0] == [{"prompt": "hello"}]
    assert "secret" not in json.dumps(readable.headers)


@pytest.mark.parametrize(
    ("eta", "ms"),
    [("2026-11-21T00:00:00+00:00", 1795219200000), ("2026-11-21T00:00:00", 1795219200000),
     ("2026-11-21T01:00:00+01:00", 1795219200000)],
)  # fmt: skip
def test_an_eta_is_a_moment_and_leaves_the_headers(eta: str, ms: int) -> None:
    message = stock_message("s1")
    message["headers"]["eta"] = eta
    readable = read(json.dumps(message).encode())
    assert readable.not_before_ms == ms
    assert "eta" not in readable.headers


@pytest.mark.parametrize(
    ("eta", "expires", "wait_ms"),
    [(None, None, 0), (None, 5, 0), (5, None, 5000), (5, 3, 3000), (3, 5, 3000), (5, -1, -1000)],
)
def test_a_job_waits_for_its_eta_but_not_past_its_expires(
    eta: int | None, expires: int | None, wait_ms: int
) -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    message = stock_message("s1")
    for name, after_s in (("eta", eta), ("expires", expires)):
        moment = None if after_s is None else (now + timedelta(seconds=after_s)).isoformat()
        message["headers"][name] = moment
    readable = read(json.dumps(message).encode())
    assert readable.wait_ms(int(now.timestamp() * 1000)) == wait_ms


@pytest.mark.parametrize(
    ("given", "priority"), [(0, 0), (7, 7), (12, 9), (-1, 0), (None, 0), ("5", 0), (True, 0)]
)
def test_a_priority_is_read_as_kombu_reads_it(given: object, priority: int) -> None:
    message = stock_message("s1")
    message["properties"]["priority"] = given
    assert read(json.dumps(message).encode()).priority == priority


def test_stamps_are_kept_where_they_have_celerys_form() -> None:
    message = stock_message("s1")
    message["headers"] |= {"stamped_headers": ["a", "b"], "stamps": {"a": ["x"], "c": "y"}}
    kept = read(json.dumps(message).encode()).headers
    assert (kept["stamped_headers"], kept["stamps"]) == (["a"], {"a": ["x"]})
    message["headers"]["stamps"] = "x"
    assert "stamps" not in read(json.dumps(message).encode()).headers


@pytest.mark.parametrize("shape", sorted(DEAD.keys() - {"over 24 MB"}))
def test_what_is_no_job_has_a_reason(shape: str) -> None:
    with pytest.raises(UnreadableMessage) as raised:
        read(DEAD[shape])
    assert 5 < len(raised.value.reason) < 120
    assert "\n" not in raised.value.reason


@pytest.mark.parametrize("shape", HARMLESS)
def test_what_only_looks_odd_is_a_job(shape: str) -> None:
    read(HARMLESS[shape])


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_answered(raw: bytes) -> None:
    with suppress(UnreadableMessage):
        read(raw)


@given(place=st.sampled_from([*PARTS, *HEADERS]), value=JSON)
def test_any_value_in_any_place_is_answered(place: str, value: Any) -> None:
    message = stock_message("s1")
    (message if place in PARTS else message["headers"])[place] = value
    with suppress(UnreadableMessage):
        readable = read(json.dumps(message).encode())
        assert isinstance(readable.headers["id"], str)
        assert len(readable.body) == 3


@given(secret=st.text("abcdefgh", min_size=12))
def test_a_reason_quotes_nothing(secret: str) -> None:
    for raw in (secret.encode(), json.dumps(secret).encode()):
        with pytest.raises(UnreadableMessage) as raised:
            read(raw)
        assert secret not in raised.value.reason
    for place in HEADERS:
        message = stock_message("s1")
        message["headers"][place] = [secret]
        reasons: list[str] = []
        try:
            read(json.dumps(message).encode())
        except UnreadableMessage as error:
            reasons.append(error.reason)
        assert not any(secret in reason for reason in reasons)
