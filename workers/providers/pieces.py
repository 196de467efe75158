"""Merges the pieces of a streamed answer, also those of fields that are newer than we are.

The rule is that of the vendors' SDKs: in a delta texts grow, items of a list with the same `index`
are one item, other lists get longer, and all else is replaced. A null takes nothing away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headgate.workers.providers.reading import ITEM, NODE

Fields = dict[str, Any]

TOGETHER = 256
"""So many pieces of a text are joined."""

#: Texts that a delta names whole. Some servers repeat them in every delta.
ONCE = frozenset(
    {"role", "type", "id", "name", "object", "model", "format", "index", "status", "signature"}
)


class GrowingText:
    """A text that comes in many pieces.

    Adding to a text of 100 kB copies it each time, and a list of its pieces takes ten times as much
    as the text: so every few hundred of them are joined.
    """

    def __init__(self, begin: str = "") -> None:
        self._joined = [begin] if begin else []
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        """Add a piece at the end."""
        self._pieces.append(piece)
        if len(self._pieces) >= TOGETHER:
            self._join()

    def whole(self) -> str:
        """Return the text."""
        self._join()
        self._joined = ["".join(self._joined)]
        return self._joined[0]

    def _join(self) -> None:
        self._joined.append("".join(self._pieces))
        self._pieces.clear()


class Pieces:
    """The values of one answer while its pieces come. `settle` turns them into plain JSON.

    `size`: about how many bytes of memory they take.
    """

    def __init__(self) -> None:
        self.size = 0
        self._texts: dict[tuple[int, str], tuple[Fields, GrowingText]] = {}

    def grow(self, holder: Fields, name: str, text: str) -> None:
        """Add the text to the field `name` of this object."""
        found = self._texts.get((id(holder), name))
        if found is None:
            before = holder.get(name)
            found = holder, GrowingText(before if isinstance(before, str) else "")
            self._texts[id(holder), name] = found
            holder[name] = ""
            self.size += NODE
        self.size += size_of(text)
        found[1].add(text)

    def take_text(self, holder: Fields, name: str) -> str:
        """Remove the field `name` of this object, and return what it has grown to."""
        found = self._texts.pop((id(holder), name), None)
        before = holder.pop(name, None)
        if found is not None:
            return found[1].whole()
        return before if isinstance(before, str) else ""

    def merge(self, whole: Fields, piece: Fields, *, grows: bool = True) -> None:
        """Merge a piece into an object. With `grows` its texts are pieces of texts."""
        for name, value in piece.items():
            before = whole.get(name)
            if isinstance(value, str) and grows and name not in ONCE:
                self.grow(whole, name, value)
            elif isinstance(value, dict):
                if not isinstance(before, dict):
                    before = whole[name] = {}
                    self.size += NODE
                self.merge(before, value, grows=grows)
            elif isinstance(value, list):
                if not isinstance(before, list):
                    before = whole[name] = []
                    self.size += NODE
                self.extend(before, value, grows=grows)
            else:
                self.replace(whole, name, value)

    def replace(self, whole: Fields, name: str, value: Any) -> None:
        """Set the field, unless it has a value and the new one is empty."""
        if name not in whole:
            self.size += NODE + size_of(value)
        replace_field(whole, name, value)

    def extend(self, whole: list[Any], items: Iterable[Any], *, grows: bool = True) -> None:
        """Add items to a list. Those with the `index` and type of one before are pieces of it."""
        for item in items:
            if not isinstance(item, dict) or not isinstance(item.get("index"), int):
                whole.append(item)
                self.size += size_of(item)
                continue
            same = next((one for one in whole if _is_piece_of(item, one)), None)
            if same is None:
                same = {}
                whole.append(same)
                self.size += NODE
            self.merge(same, item, grows=grows)

    def grown(self) -> str:
        """Return all texts that have grown, one after the other."""
        return "".join(text.whole() for _, text in self._texts.values())

    def settle(self) -> None:
        """Write the texts into their objects."""
        for (_, name), (holder, text) in self._texts.items():
            holder[name] = text.whole()
        self._texts.clear()


def place_of(piece: Fields) -> int | str | None:
    """Return which of several parts of an answer this is: its `index`, or None."""
    index = piece.get("index")
    return index if isinstance(index, int | str) else None


def size_of(value: Any, levels: int = 100) -> int:
    """Return about how many bytes of memory this JSON value takes, so many `levels` deep."""
    if isinstance(value, str):
        return len(value) if value.isascii() else 4 * len(value)
    if not isinstance(value, dict | list) or levels == 0:
        return ITEM
    items = value.values() if isinstance(value, dict) else value
    names = sum(map(len, value)) if isinstance(value, dict) else 0
    return NODE + names + sum(size_of(item, levels - 1) for item in items)


def replace_field(whole: Fields, name: str, value: Any) -> None:
    """Set the field, unless it has a value and the new one is empty."""
    if value or name not in whole or isinstance(value, int | float):
        whole[name] = value


def _is_piece_of(item: Fields, one: Any) -> bool:
    return (
        isinstance(one, dict)
        and one.get("index") == item["index"]
        and item.get("type", one.get("type")) == one.get("type")
    )
