"""How long an answer serves equal requests, decided by what was asked; each with its reason. Pure.

The caller's own word goes first (`cache.mode`, `cache.ttl_s`), then the catalog's rules of cache
for the request's template, then those for words of its user messages, then the setting for all.
Where several rules match, the shortest lifetime counts: an answer that is bought again costs cents,
an old price or another customer's order costs more. Measured: 5 us for a short prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headgate.shared.catalog.schema import CacheRule
from headgate.shared.job.request import Request

MOST_TEXT = 1000
"""Characters at the beginning and at the end of what a user says in which words are looked for."""

_WORDS = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class CacheTtl:
    """Seconds that an answer is kept, 0 for never, and why."""

    ttl_s: int
    reason: str


class KeywordPattern(NamedTuple):
    """The words of one keyword that follow its first word.

    `stem`: the last word is a beginning; `first`: only at the start of the text.
    """

    rest: tuple[str, ...]
    stem: bool
    first: bool
    ttl_s: int
    rule: str

    @property
    def until(self) -> int | None:
        """How many words of a text it may be: the first, or any."""
        return 1 if self.first else None

    def matches(self, said: list[str], at: int) -> bool:
        """Whether it stands in these words, its own first word at place `at`."""
        rest = self.rest
        if self.first and at:
            return False
        if not rest:
            return True
        found = said[at + 1 : at + 1 + len(rest)]
        if self.stem and len(found) == len(rest) and found[-1].startswith(rest[-1]):
            found[-1] = rest[-1]
        return tuple(found) == rest


def words_of(keyword: str) -> list[str]:
    """The words of a keyword or a text, as they are compared."""
    return _WORDS.findall(keyword.lower())


def _general(request: Request) -> str:
    return "embedding" if request.embeds else "general"


@dataclass(frozen=True, slots=True)
class CacheRuleIndex:
    """The catalog's rules of cache, ready to be asked.

    `by_word`: what begins with this word; `by_stem`: beginnings of single words.
    """

    by_template: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    by_word: Mapping[str, tuple[KeywordPattern, ...]] = field(default_factory=dict)
    by_stem: tuple[tuple[str, KeywordPattern], ...] = ()

    @classmethod
    def of(cls, rules: Mapping[str, CacheRule]) -> CacheRuleIndex:
        """From the entries of the catalog, by their names."""
        templates: dict[str, tuple[int, str]] = {}
        by_word: dict[str, list[KeywordPattern]] = {}
        by_stem: list[tuple[str, KeywordPattern]] = []
        for name, rule in rules.items():
            for template in rule.templates:
                mine = (rule.ttl_s, name)
                templates[template] = min(mine, templates.get(template, mine))
            for keyword in rule.keywords:
                start, *rest = words_of(keyword)
                stem, first = keyword.endswith("*"), keyword.startswith("^")
                pattern = KeywordPattern(tuple(rest), stem, first, rule.ttl_s, name)
                if stem and not rest:
                    by_stem.append((start, pattern))
                else:
                    by_word.setdefault(start, []).append(pattern)
        return cls(
            templates,
            {word: tuple(found) for word, found in by_word.items()},
            tuple(by_stem),
        )

    def match(self, request: Request) -> tuple[int, str] | None:
        """Seconds and the name of the rule that decides; None where none matches."""
        if request.template is not None and request.template in self.by_template:
            return self.by_template[request.template]
        if request.embeds:
            return None  # a vector does not age, and is nobody's secret to its own tenant
        text = _said(request).lower()
        said: list[str] = _WORDS.findall(text)
        patterns: list[tuple[int, str]] = []
        if not self.by_word.keys().isdisjoint(said):  # most often: at the speed of C
            patterns += (
                (pattern.ttl_s, pattern.rule)
                for at, word in enumerate(said)
                for pattern in self.by_word.get(word, ())
                if pattern.matches(said, at)
            )
        for stem, pattern in self.by_stem:
            if stem in text and any(word.startswith(stem) for word in said[: pattern.until]):
                patterns.append((pattern.ttl_s, pattern.rule))
        return min(patterns, default=None)


def _said(request: Request) -> str:
    """The beginning and the end of what the user says, the last message first."""
    if request.prompt is not None:
        return _ends(request.prompt)
    return _ends(" \n".join(_texts(request.messages or ())))


def _ends(text: str) -> str:
    if len(text) <= 2 * MOST_TEXT:
        return text
    return f"{text[:MOST_TEXT]} \n{text[-MOST_TEXT:]}"


def _texts(messages: Sequence[Mapping[str, object]]) -> Iterable[str]:
    left = 2 * MOST_TEXT
    for message in reversed(messages):
        if left <= 0:
            return
        if message.get("role") != "user":
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        for part in parts:
            text = part.get("text") if isinstance(part, dict) else None
            if isinstance(text, str):
                left -= len(text)
                yield _ends(text)


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """All that lifetimes depend on beside the request: rules, and the settings of the cache.

    `ttl_s`: where no rule says otherwise; `temperature`: above it, without a seed, answers are
    meant to vary and are kept only if asked.
    """

    rules: CacheRuleIndex = CacheRuleIndex()
    ttl_s: int = 1800
    temperature: float = 0.7

    def lifetime(self, request: Request) -> CacheTtl:
        """How long the answer to this request is kept."""
        wish = request.cache
        if wish.mode == "off":
            return CacheTtl(0, "off")
        if wish.ttl_s is not None:
            return CacheTtl(wish.ttl_s, "asked")
        asked = wish.mode == "exact"
        if not asked and self._varies(request):
            return CacheTtl(0, "varies")
        found = self.rules.match(request)
        if found is None or (asked and found[0] == 0):
            return CacheTtl(self.ttl_s, "asked" if asked else _general(request))
        return CacheTtl(*found)

    def keeps(self, request: Request) -> bool:
        """Whether the answer is kept at all."""
        return self.lifetime(request).ttl_s > 0

    def _varies(self, request: Request) -> bool:
        if not request.params or request.embeds:
            return False
        given = request.params.get("temperature")
        return (
            isinstance(given, int | float)
            and given > self.temperature
            and request.params.get("seed") is None
        )
