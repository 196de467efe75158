"""Leaves a Markdown code fence around JSON out of a streamed text.

A caller who asked for a JSON object gets no fence in a whole answer, so it gets none in a stream.
"""

from __future__ import annotations

import re

_FENCE = "```"
_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)

LONGEST_BEGIN = 1000
"""A text that begins with more blanks than this has no fence."""


class FenceFilter:
    """Passes text on, but for one that begins with a fence: that is held until its end."""

    def __init__(self, *, json_only: bool) -> None:
        self._held: list[str] | None = [] if json_only else None
        self._is_fenced = False

    def take(self, text: str) -> str:
        """Return the text to pass on now."""
        if self._held is None:
            return text
        self._held.append(text)
        if self._is_fenced:
            return ""
        held = "".join(self._held)
        begin = held.lstrip()[: len(_FENCE)]
        self._is_fenced = begin == _FENCE
        if self._is_fenced or (_FENCE.startswith(begin) and len(held) < LONGEST_BEGIN):
            return ""
        self._held = None
        return held

    def end(self) -> str:
        """Return what is held, without a fence around all of it."""
        held = "".join(self._held or ())
        self._held = None
        found = _FENCED.fullmatch(held)
        return found[1] if found else held
