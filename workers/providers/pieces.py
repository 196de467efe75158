"""Merges the pieces of a streamed answer, also those of fields that are newer than we are.

The rule is that of the vendors' SDKs: in a delta texts grow, items of a list with the same `index`
are one item, other lists get longer, and all else is replaced. A null takes nothing away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Fields = dict[str, Any]

#: Texts that a delta names whole. Some servers repeat them in every delta.
ONCE = frozenset(
    {"role", "type", "id", "name", "object", "model", "format", "index", "status", "signature"}
)


class Pieces:
    """The values of one answer while its pieces come. `settle` turns them into plain JSON."""

    def __init__(self) -> None:
        # Adding to a text of 100 kB copies it each time: its pieces are joined at the end.
        self._texts: dict[tuple[int, str], tuple[Fields, list[str]]] = {}

    def grow(self, holder: Fields, name: str, text: str) -> None:
        """Add the text to the field `name` of this object."""
        found = self._texts.get((id(holder), name))
        if found is None:
            before = holder.get(name)
            found = holder, [before] if isinstance(before, str) else []
            self._texts[id(holder), name] = found
            holder[name] = ""
        found[1].append(text)

    def take_text(self, holder: Fields, name: str) -> str:
        """Remove the field `name` of this object, and return what it has grown to."""
        found = self._texts.pop((id(holder), name), None)
        before = holder.pop(name, None)
        if found is not None:
            return "".join(found[1])
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
                self.merge(before, value, grows=grows)
            elif isinstance(value, list):
                if not isinstance(before, list):
                    before = whole[name] = []
                self.extend(before, value, grows=grows)
            else:
                replace_field(whole, name, value)

    def extend(self, whole: list[Any], items: Iterable[Any], *, grows: bool = True) -> None:
        """Add items to a list. Those with the `index` and type of one before are pieces of it."""
        for item in items:
            if not isinstance(item, dict) or not isinstance(item.get("index"), int):
                whole.append(item)
                continue
            same = next((one for one in whole if _is_piece_of(item, one)), None)
            if same is None:
                same = {}
                whole.append(same)
            self.merge(same, item, grows=grows)

    def settle(self) -> None:
        """Write the texts into their objects."""
        for (_, name), (holder, parts) in self._texts.items():
            holder[name] = "".join(parts)
        self._texts.clear()


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
