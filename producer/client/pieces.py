"""The pieces of a streamed answer, and how a reader goes on where it left off.

A piece is a text that knows its place. The place counts the characters of the answer up to there,
because pieces are cut anew for every reader: those of a worker by the moment, those of a result by
words. The checksum in it tells an answer from another one that a second worker made.
"""

from __future__ import annotations

import re
import zlib

from headgate.shared.errors import InvalidRequest

_PLACE = re.compile(r"(\d{1,12})(?:-([0-9a-f]{8}))?", re.ASCII)

REMEDY = (
    "give how many characters you have, the `after` of the last piece, or 0 for the whole answer"
)


class TextPiece(str):
    """A piece of an answer.

    `after`: the place behind the piece. Give it to `stream` as `after` to go on from there; it fits
    the `id` of a server-sent event, too.
    """

    __slots__ = ("after",)

    after: str

    def __new__(cls, text: str, after: str) -> TextPiece:
        """Return the text as a piece that ends at this place."""
        piece = super().__new__(cls, text)
        piece.after = after
        return piece

    def __reduce__(self) -> tuple[type[TextPiece], tuple[str, str]]:
        """Return what pickle stores."""
        return TextPiece, (str(self), self.after)


class PieceCutter:
    """Cuts off the beginning of an answer that its reader has already, and numbers the rest.

    after: how many characters the reader has, or the `after` of a piece. Raises InvalidRequest for
    anything else.
    """

    def __init__(self, after: int | str = 0) -> None:
        self._left, self._expected = _parsed(after)
        self._count = 0
        self._checksum = 0

    @property
    def is_behind(self) -> bool:
        """Whether the reader has more than has come so far."""
        return self._left > 0

    @property
    def place(self) -> str:
        """The place that was reached."""
        return f"{self._count}-{self._checksum:08x}"

    def cut(self, text: str) -> TextPiece | None:
        """Return what is new to the reader of the next part of the answer; None if nothing is.

        Raises ValueError if what the reader has belongs to another answer.
        """
        known, new = text[: self._left], text[self._left :]
        if known:
            self._left -= len(known)
            self._count_in(known)
            if not self._left and self._expected not in (None, self._checksum):
                raise ValueError("the reader has the beginning of another answer")
        if not new:
            return None
        self._count_in(new)
        return TextPiece(new, self.place)

    def _count_in(self, text: str) -> None:
        self._count += len(text)
        self._checksum = zlib.crc32(text.encode("utf-8", "surrogatepass"), self._checksum)


def _parsed(after: object) -> tuple[int, int | None]:
    """Return how many characters the reader has, and their checksum if it is known."""
    if isinstance(after, int) and not isinstance(after, bool) and after >= 0:
        return after, None
    found = _PLACE.fullmatch(after) if isinstance(after, str) else None
    if found is None:
        raise InvalidRequest("after", after, REMEDY)
    return int(found[1]), None if found[2] is None else int(found[2], 16)
