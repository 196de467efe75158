"""Pieces know their place, and a reader goes on from any place without a gap or a repeat."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate import InvalidRequest, TextPiece
from headgate.producer.client.pieces import PieceCutter

TEXTS = st.lists(st.text(alphabet="ab €\U0001f600", min_size=1, max_size=9), max_size=8)


def pieces_of(parts: list[str], after: int | str = 0) -> list[TextPiece]:
    """Return what a reader gets of an answer that comes in these parts."""
    cutter = PieceCutter(after)
    return [piece for part in parts if (piece := cutter.cut(part)) is not None]


@given(TEXTS, TEXTS, st.data())
def test_a_reader_goes_on_after_any_piece_however_the_answer_is_cut(
    parts: list[str], others: list[str], data: st.DataObject
) -> None:
    whole = "".join(parts)
    read = data.draw(st.integers(0, len(parts)))
    had = pieces_of(parts)[:read]
    assert "".join(had) == "".join(parts[:read])
    rest = whole[len("".join(had)) :]
    for after in (len("".join(had)), had[-1].after if had else "0"):
        assert "".join(pieces_of([whole], after)) == rest
        assert "".join(pieces_of(parts, after)) == rest
        assert "".join(pieces_of(list(whole), after)) == rest
    other, begun = "".join(others), "".join(had)
    if had and len(other) >= len(begun) and not other.startswith(begun):
        with pytest.raises(ValueError, match="another answer"):
            pieces_of(others, had[-1].after)


def test_a_place_survives_a_reader_that_gets_nothing_new() -> None:
    cutter = PieceCutter(5)
    assert cutter.cut("one") is None
    assert cutter.is_behind
    assert cutter.place.startswith("3-")
    assert cutter.cut(" two") == "wo"
    assert not cutter.is_behind


def test_a_piece_is_a_text_and_survives_pickle_and_copy() -> None:
    piece = PieceCutter().cut("one")
    assert piece == "one"
    for again in (pickle.loads(pickle.dumps(piece)), copy.deepcopy(piece)):  # noqa: S301  our own
        assert (again, again.after) == (piece, piece and piece.after)


@pytest.mark.parametrize(
    "after", [-1, 1.5, True, None, "", "x", "-3", "3-", "3-zz", "\u0661", b"3"]
)
def test_what_is_no_place_is_refused_with_what_to_give(after: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"after: .*how many characters you have"):
        PieceCutter(after)
