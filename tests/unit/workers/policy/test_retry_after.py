"""How long a provider asks us to wait, in all the forms that are sent, sensible or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.workers.policy.retry_after import MOST_MS, SHOWN_CHARS, RetryAfter, read, said

NOW_S = 1_796_007_200.0  # Mon, 30 Nov 2026 02:53:20 GMT
IN_20_S = "Mon, 30 Nov 2026 02:53:40 GMT"


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({"retry-after-ms": "250"}, 250),
        ({"retry-after-ms": "0.2", "retry-after": "9"}, 1),
        ({"retry-after": "2"}, 2000),
        ({"retry-after": "1.5"}, 1500),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "864000"}, 864_000_000),
        ({"retry-after": IN_20_S}, 20_000),
        ({"retry-after": "Monday, 30-Nov-26 02:53:40 GMT"}, 20_000),
        ({"retry-after": "Mon Nov 30 02:53:40 2026"}, 20_000),
        ({"retry-after": "Mon, 30 Nov 2026 02:53:00 GMT"}, 0),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3000),
        ({"retry-after": "99999999999"}, 99_999_999_999_000),
        ({"retry-after": "9" * 300}, MOST_MS),
        ({}, None),
    ],
)
def test_a_wait_is_read_in_all_its_forms(headers: dict[str, str], wait_ms: int | None) -> None:
    assert read(headers, NOW_S) == RetryAfter(wait_ms)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("retry-after", str(int(NOW_S) + 20)),
        ("retry-after", str((int(NOW_S) + 20) * 1000)),
        ("retry-after-ms", str((int(NOW_S) + 20) * 1000)),
        ("retry-after-ms", str(int(NOW_S) + 20)),
    ],
)
def test_a_unix_time_is_read_as_a_moment_and_said_to_be_one(name: str, text: str) -> None:
    found = read({name: text}, NOW_S)
    assert found == RetryAfter(20_000, f"{name}: '{text}' is read as a moment")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("-1", "is no time to wait"),
        ("nan", "is no time to wait"),
        ("inf", "is no time to wait"),
        ("1e400", "is no time to wait"),
        ("Thu, 99 Foo", "is no time to wait"),
        ("", "is no time to wait"),
        ("soon", "is no time to wait"),
        ("Thu, 01 Jan 1970 00:00:01 GMT", "has passed"),
        (str(int(NOW_S) - 4000), "has passed"),
    ],
)
def test_what_cannot_be_obeyed_is_no_wait_and_the_note_names_it(text: str, words: str) -> None:
    assert read({"retry-after": text}, NOW_S) == RetryAfter(None, f"retry-after: {text!r} {words}")


def test_moments_are_read_against_the_answers_own_clock() -> None:
    """A provider whose clock is an hour behind ours asks for 20 s, not for nothing."""
    headers = {"date": "Mon, 30 Nov 2026 02:53:20 GMT", "retry-after": IN_20_S}
    assert read(headers, NOW_S + 3600) == RetryAfter(20_000)
    assert read(headers | {"date": "today"}, NOW_S) == RetryAfter(20_000)


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text(max_size=80)
    ),
    st.floats(0, 4e9),
)
def test_no_header_raises_and_no_note_is_long_or_breaks_a_line(
    headers: dict[str, str], now_s: float
) -> None:
    found = read(headers, now_s)
    assert found.wait_ms is None or 0 <= found.wait_ms <= MOST_MS
    for text in (found.note, said(headers)):
        assert text.isprintable()
        assert len(text) <= 10 * SHOWN_CHARS + 60
