"""The cache policy: how long an answer serves equal requests, and why. Pure.

The first of these decides:

1. the caller's `cache.mode` and `cache.ttl_s`;
2. `store: true`, with which the vendor keeps the request: its answer is neither taken nor kept;
   nor is one that depends on what the vendor has on record, or on tools that the vendor runs;
3. the catalog's cache rules for the request's template;
4. its cache rules for words of the user's messages;
5. the setting for all.

If several rules match, the shortest lifetime counts: another call costs cents, but an old price or
another customer's order costs more. Measured: 5 us for a short prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headgate.shared.catalog.schema import CacheRule
from headgate.shared.job.request import Request
from headgate.shared.responses.chat_form import readable
from headgate.shared.responses.state import changes_state, depends_on_state

SEARCHED_CHARACTERS = 1000
"""How many characters of a user's text are searched for words, at its beginning and its end."""

_WORDS = re.compile(r"\w+")

_ASCII_WORDS = bytes(
    byte if (chr(byte).isalnum() and byte < 128) or byte == ord("_") else ord(" ")
    for byte in (ord(chr(byte).lower()) if byte < 128 else byte for byte in range(256))
)
"""Makes of each ASCII byte the lower-case letter, the digit or `_` that it is, or a space."""


@dataclass(frozen=True, slots=True)
class CacheTtl:
    """How many seconds an answer is kept (0: not at all), and why: a rule's name or a reason."""

    ttl_s: int
    reason: str


class KeywordPattern(NamedTuple):
    """A keyword without its first word, by which it is found.

    With `stem` its last word may have any ending; with `first` it counts only at the start of a
    text. `ttl_s` and `rule` are those of its rule.
    """

    rest: tuple[str, ...]
    stem: bool
    first: bool
    ttl_s: int
    rule: str

    @property
    def until(self) -> int | None:
        """How many words of a text to look at: the first one, or all (None)."""
        return 1 if self.first else None

    def matches(self, words: list[str], at: int) -> bool:
        """Return whether the keyword is in these words, with its first word at index `at`."""
        rest = self.rest
        if self.first and at:
            return False
        if not rest:
            return True
        found = words[at + 1 : at + 1 + len(rest)]
        if self.stem and len(found) == len(rest) and found[-1].startswith(rest[-1]):
            found[-1] = rest[-1]
        return tuple(found) == rest


def words_of(text: str) -> list[str]:
    """Return the words of a keyword or a text in lower case."""
    if text.isascii():  # the same words, in a quarter of the time
        return text.encode().translate(_ASCII_WORDS).decode().split()
    return _WORDS.findall(text.lower())


def _general(request: Request) -> str:
    return "embedding" if request.embeds else "general"


@dataclass(frozen=True, slots=True)
class CacheRuleIndex:
    """The catalog's cache rules, indexed for matching.

    `by_template` has the lifetime and the rule of a template. `by_word` has the keywords by their
    first word. `by_stem` has the keywords of one word with any ending. `of_no_cache` is the index
    of the rules with a lifetime of 0 alone, if there are other rules.
    """

    by_template: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    by_word: Mapping[str, tuple[KeywordPattern, ...]] = field(default_factory=dict)
    by_stem: tuple[tuple[str, KeywordPattern], ...] = ()
    of_no_cache: CacheRuleIndex | None = None

    @classmethod
    def of(cls, rules: Mapping[str, CacheRule]) -> CacheRuleIndex:
        """Return the index of the catalog's cache rules, which are given by name."""
        of_no_cache = {name: rule for name, rule in rules.items() if rule.ttl_s == 0}
        templates: dict[str, tuple[int, str]] = {}
        by_word: dict[str, list[KeywordPattern]] = {}
        by_stem: list[tuple[str, KeywordPattern]] = []
        for name, rule in rules.items():
            for template in rule.templates:
                own = (rule.ttl_s, name)
                templates[template] = min(own, templates.get(template, own))
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
            cls.of(of_no_cache) if len(of_no_cache) < len(rules) else None,
        )

    def match(self, request: Request) -> tuple[int, str] | None:
        """Return the lifetime in seconds and the name of the deciding rule; None for no rule."""
        if request.template is not None and request.template in self.by_template:
            return self.by_template[request.template]
        if request.answer_kind != "text":
            return None  # a vector or verdict does not age, and tells nothing of another user
        text = _text_of_user(request).lower()
        words = words_of(text)
        matches = [
            (pattern.ttl_s, pattern.rule)
            for first in self.by_word.keys() & words
            for pattern in self.by_word[first]
            if any(pattern.matches(words, at) for at in _places(first, words))
        ]
        for stem, pattern in self.by_stem:
            if stem in text and any(word.startswith(stem) for word in words[: pattern.until]):
                matches.append((pattern.ttl_s, pattern.rule))
        return min(matches, default=None)


def _places(word: str, words: list[str]) -> Iterator[int]:
    """Yield the indexes of the word."""
    at = -1
    for _ in range(words.count(word)):
        at = words.index(word, at + 1)
        yield at


def _text_of_user(request: Request) -> str:
    """Return the beginning and the end of the user's messages, the last message first."""
    if request.prompt is not None:
        return _ends(request.prompt)
    request = readable(request)
    return _ends(" \n".join(_texts(request.messages or ())))


def _ends(text: str) -> str:
    if len(text) <= 2 * SEARCHED_CHARACTERS:
        return text
    return f"{text[:SEARCHED_CHARACTERS]} \n{text[-SEARCHED_CHARACTERS:]}"


def _texts(messages: Sequence[Mapping[str, object]]) -> Iterable[str]:
    left = 2 * SEARCHED_CHARACTERS
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
    """What lifetimes depend on beside the request: the cache rules and the settings of the cache.

    `ttl_s` holds if no rule matches. Above `temperature` and without a seed, answers are meant to
    vary: they are kept only if the caller asks for it.
    """

    rules: CacheRuleIndex = CacheRuleIndex()
    ttl_s: int = 1800
    temperature: float = 0.7

    def lifetime(self, request: Request) -> CacheTtl:
        """Return how long to keep the answer to this request."""
        return self._before_rules(request) or self._by_rules(request)

    def keeps(self, request: Request) -> bool:
        """Return whether to keep the answer at all, in a third of the time of `lifetime`."""
        decided = self._before_rules(request)
        if decided is not None:
            return decided.ttl_s > 0
        rules = self.rules
        if rules.of_no_cache is None or self.ttl_s <= 0 or request.template in rules.by_template:
            return self._by_rules(request).ttl_s > 0
        return request.cache.mode == "exact" or rules.of_no_cache.match(request) is None

    def _before_rules(self, request: Request) -> CacheTtl | None:
        """Return the lifetime that request and settings decide alone; None: look at the rules."""
        wish = request.cache
        if wish.mode == "off":
            return CacheTtl(0, "off")
        if changes_state(request):
            return CacheTtl(0, "stateful")
        if wish.ttl_s is not None:
            return CacheTtl(wish.ttl_s, "asked")
        if wish.mode == "exact":
            return None
        if request.params.get("store") is True:
            return CacheTtl(0, "stored")  # the vendor is to keep an answer of this very request
        if request.dialect == "responses" and request.params.get("store") is False:
            return CacheTtl(0, "unstored")  # nothing is to be kept after the answer
        if depends_on_state(request):
            return CacheTtl(0, "stateful")
        return CacheTtl(0, "varies") if self._varies(request) else None

    def _by_rules(self, request: Request) -> CacheTtl:
        asked, found = request.cache.mode == "exact", self.rules.match(request)
        if found is None or (asked and found[0] == 0):
            return CacheTtl(self.ttl_s, "asked" if asked else _general(request))
        return CacheTtl(*found)

    def _varies(self, request: Request) -> bool:
        if not request.params or request.embeds:
            return False
        given = request.params.get("temperature")
        return (
            isinstance(given, int | float)
            and given > self.temperature
            and request.params.get("seed") is None
        )
