"""Reads features from a prompt: typical words, numbers, signs of code, how much it asks. Pure.

`Lexicon` is built from `words.toml`. `classify.py` decides by the features that `read` returns. A
long prompt takes no longer than a short one: only its beginning and its end are read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

HEAD, TAIL = 3_000, 800
"""Characters that are read at the beginning and the end of a long prompt."""

WORDS_READ = 260
"""How many words are looked up; further ones add little."""

MATERIAL_WEIGHT = 0.35
"""How much a word of the material counts; a word of what is asked counts 1."""

WORD = re.compile(r"[^\W\d_]+(?:['\u2019.+#-]+[^\W\d_]+)*[+#]*|/|\d+(?:[.,:]\d+)*", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_RUN = re.compile(r"\d[\d.,]*(?:\s*[;,/+|]\s*(?:and |und |et |y )?\d[\d.,]*){2,}")
_QUOTED = re.compile(r"[\"“„«](?P<said>[^\"”“«»]{2,}?)[\"”“»]", re.DOTALL)
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_TICKED = re.compile(r"`[^`\n]+`")
_CODE_MARK = re.compile(
    r"[{};]\s*(?:\n|$)|\w\w\(\)|\w\w\(\w+\)|=>|->|==|!=|&&|\|\||</?\w+>|^\s*(?:def|class|import|from|func|fn|"
    r"const|let|var|return|public|SELECT|INSERT|CREATE|UPDATE)\b|\b\w+_\w+\b|\b[a-z]+[A-Z]\w*\b"
    r"|\b[\w-]+\.(?:py|js|ts|go|rs|java|cpp|sh|sql|html|css|json|ya?ml|toml|txt)\b|\s--?[a-z][\w-]+",
    re.MULTILINE,
)
_MATH_MARK = re.compile(
    r"\b[a-zA-Z]\([a-z0-9+*/^ -]+\)|\^\d|[∑∫√≤≥≠∈∀∃∞]|\b\d*[a-z]\s?[-+*=<>]\s?\d|\bn > \d"
    r"|\d\s?(?:[*\u00d7x\u00f7]|times|plus|minus|mal|fois|por|divided by)\s?\d"
    r"|\d+/\d+\b|\[\d,\s?\d\]"
)
_SENTENCE = re.compile(r"[.!?;:](?=\s|$)|\n+")
_MONEY = re.compile(r"[€$£%‰]|\b(?:USD|EUR|CHF|euros?|dollars?|pounds?)\b", re.IGNORECASE)
_LEARNED = re.compile(
    r".{3}(?:osis|itis|emia|ology|ologie|ología|ography|onomy|ase|illin|phyll|genic|genesis|metric|isms?"
    r"|esian|ivity|icity|onics|ium|isation|ization|ismus|isme|ismo|gamy|tropic|lysis|cyte|oxide)$"
)
_NAME = re.compile(r"(?<=[a-zé,] )[A-ZÉÜÖÄ]\w{2,}")
_UNIT = re.compile(
    r"\d\s?(?:km|m|cm|mm|kg|g|l|litres?|liters?|h|hours?|min|minutes?|s|days?|weeks?|months?|years?"
    r"|km/h|mph|k|m²|kWh|°C|Stunden|Tage|jours|heures|horas|días)\b"
)


Phrase = tuple[tuple[str, ...], str]
"""The words of a phrase after its first two, and the feature that it stands for."""


class Lexicon:
    """The words and phrases of each feature, indexed for looking them up."""

    MAX_CACHED = 20_000
    """Words whose features are remembered."""

    def __init__(self, tables: Mapping[str, str]) -> None:
        """Index the entries of each feature; the head of `words.toml` explains their form."""
        self._words: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        self._phrases: dict[tuple[str, str], list[Phrase]] = {}
        for feature, text in tables.items():
            for entry in dict.fromkeys(re.split(r"\s*[|\n]\s*", text.strip())):
                parts = tuple(WORD.findall(entry.rstrip("*")))
                if len(parts) > 1:
                    self._phrases.setdefault(parts[:2], []).append((parts[2:], feature))
                elif parts:
                    table = self._stems if entry.endswith("*") else self._words
                    table.setdefault(parts[0], []).append(feature)
        self._lengths = sorted({len(stem) for stem in self._stems})
        self._known: dict[str, tuple[str, ...]] = {}

    def of_word(self, word: str) -> tuple[str, ...]:
        """Return the features that this word stands for."""
        known = self._known.get(word)
        if known is None:
            found = list(self._words.get(word, ()))
            for length in self._lengths:
                if length > len(word):
                    break
                found += self._stems.get(word[:length], ())
            if "-" in word and word not in self._words:  # Python-Funktion, zero-knowledge
                parts = [part for part in word.split("-") if part]
                found += (one for part in parts[:4] for one in self.of_word(part))
            if len(self._known) >= self.MAX_CACHED:
                self._known.clear()
            known = self._known[word] = tuple(dict.fromkeys(found))
        return known

    def of_phrase(self, tokens: Sequence[str], n: int) -> Iterator[str]:
        """Yield the features of the phrases that begin at index `n`."""
        for rest, feature in self._phrases.get((tokens[n], tokens[n + 1]), ()):
            if not rest or tuple(tokens[n + 2 : n + 2 + len(rest)]) == rest:
                yield feature


@dataclass(frozen=True, slots=True)
class Features:
    """A value for each feature that was found, about 0 to 3, and up to 3 `words` that showed it."""

    values: Mapping[str, float]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A prompt taken apart: `text` is its beginning and end, `length` that of the whole.

    `quotes` are the texts in quotation marks. `bare` is the text without them and without blocks
    of code. `asking` is what is asked, `given` the material, both without short pieces of code.
    """

    length: int
    text: str
    quotes: list[str]
    bare: str
    asking: str
    given: str

    @classmethod
    def of(cls, text: str) -> _Parts:
        length = len(text)
        if length > HEAD + TAIL:
            text = f"{text[:HEAD]}\n{text[-TAIL:]}"
        text = text.strip()
        quotes = [found["said"] for found in _QUOTED.finditer(text)]
        bare = _FENCED.sub(" ", _QUOTED.sub(" ", text))
        return cls(length, text, quotes, bare, *_split(_TICKED.sub(" ", bare)))


def read(text: str, lexicon: Lexicon) -> Features:
    """Return the features of this prompt."""
    parts = _Parts.of(text)
    tokens = WORD.findall(parts.asking.lower())[:WORDS_READ]
    material = WORD.findall(parts.given.lower())[: max(0, WORDS_READ - len(tokens))]
    sums: dict[str, float] = {}
    words: dict[str, list[str]] = {}
    _look_up(tokens, 1.0, lexicon, sums, words)
    _look_up(material, MATERIAL_WEIGHT, lexicon, sums, words)
    values = {name: min(3.0, math.log2(1 + total)) for name, total in sums.items()}
    found = {
        **_signs(parts),
        **_shape(parts, tokens),
        **_wording(parts, tokens),
        "nothing": 0.0 if sums else 1.0,
        "long_words": sum(len(w) > 9 for w in tokens) / max(6, len(tokens)) * 5,
    }
    values.update({name: value for name, value in found.items() if value})
    to_language = "translation_say" in values or _has_language_after_to(tokens, lexicon)
    if "language" in values and to_language:
        values["into_language"] = 1.0
    return Features(values, {name: tuple(seen) for name, seen in words.items()})


def _signs(parts: _Parts) -> dict[str, float]:
    """Return the features of numbers, code and quotes."""
    bare = parts.bare
    code = len(_CODE_MARK.findall(bare)) + 2 * parts.text.count("```")
    return {
        "numbers": math.log2(1 + len(_NUMBER.findall(bare))) / 2,
        "number_runs": min(2.0, len(_RUN.findall(bare))),
        "money": min(2.0, math.log2(1 + len(_MONEY.findall(bare)))),
        "units": min(2.0, math.log2(1 + len(_UNIT.findall(bare)))),
        "code_marks": min(3.0, math.log2(1 + code)),
        "math_marks": min(2.0, math.log2(1 + len(_MATH_MARK.findall(bare)))),
        "ticks": min(1.5, len(_TICKED.findall(bare))),
        "quote": 1.0 if parts.quotes else 0.0,
        "long_quote": min(2.0, sum(map(len, parts.quotes)) / 150),
    }


def _shape(parts: _Parts, tokens: Sequence[str]) -> dict[str, float]:
    """Return the features of how much is asked, and of how much material is given."""
    asking, given, asked = parts.asking, parts.given, len(tokens)
    sentences = [part for part in _SENTENCE.split(asking) if len(part.strip()) > 3]
    return {
        "given_text": min(2.0, math.log2(1 + len(given) / 40)) if given else 0.0,
        "given_lines": min(2.0, math.log2(1 + given.count("\n")) / 2),
        "question": 1.0 if asking.rstrip().endswith("?") else 0.0,
        "questions": min(2.0, asking.count("?") - 1) if asking.count("?") > 1 else 0.0,
        "exclaims": 1.0 if "!" in asking else 0.0,
        "asked_words": math.log2(1 + asked) / 2,
        "few_words": 1.0 if asked <= 7 and not given else 0.0,
        "sentences": min(3.0, math.log2(1 + len(sentences))),
        "commas": min(2.5, math.log2(1 + asking.count(",")) / 1.5),
        "whole_length": math.log2(1 + parts.length / 100),
    }


def _wording(parts: _Parts, tokens: Sequence[str]) -> dict[str, float]:
    """Return the features of small words: who is meant, how it begins, names, conditions."""
    first = tokens[0] if tokens else ""
    return {
        "of_me": min(2.0, sum(word in _ME for word in tokens) / 2),
        "of_you": min(2.0, sum(word in _YOU for word in tokens) / 2),
        "of_us": 1.0 if any(word in _US for word in tokens) else 0.0,
        "begins_if": 1.0 if first in _IF else 0.0,
        "begins_why": 1.0 if first in _WHY else 0.0,
        "begins_what": 1.0 if first in _WHAT else 0.0,
        "begins_is": 1.0 if first in _IS else 0.0,
        "learned_endings": min(2.0, sum(_LEARNED.search(w) is not None for w in tokens) / 2),
        "names": min(2.0, len(_NAME.findall(parts.asking)) / 2),
        "ifs": min(2.0, sum(word in _IF for word in tokens)),
        "thans": min(2.0, sum(word in _THAN for word in tokens)),
    }


def _has_language_after_to(tokens: Sequence[str], lexicon: Lexicon) -> bool:
    return any(
        before in _TO and "language" in lexicon.of_word(word) for before, word in pairwise(tokens)
    )


def _look_up(
    tokens: Sequence[str], weight: float, lexicon: Lexicon, sums: dict[str, float],
    words: dict[str, list[str]],
) -> None:  # fmt: skip
    """Add `weight` to `sums` for each word and phrase of a feature, and note up to 3 in `words`."""
    last = len(tokens) - 1
    for n, word in enumerate(tokens):
        found = lexicon.of_word(word)
        if n < last:
            found = (*found, *lexicon.of_phrase(tokens, n))
        for feature in found:
            sums[feature] = sums.get(feature, 0.0) + weight
            seen = words.setdefault(feature, [])
            if len(seen) < 3 and word not in seen:
                seen.append(word)


def _split(text: str) -> tuple[str, str]:
    """Return what is asked, and the material: a long text after the first colon or line.

    A question at the very end belongs to what is asked, even after the material.
    """
    cut = re.search(r":\s*\n|\n\s*\n|:\s(?=.{40})|\n", text, re.DOTALL)
    if cut is None or cut.start() > 500 or len(text) - cut.end() < 30:
        return text, ""
    asking, given = text[: cut.start()], text[cut.end() :]
    last = re.split(r"(?<=[.!?])\s+|\n", given.rstrip())[-1]
    if last.endswith("?") and last != given:
        return f"{asking}. {last}", given.rstrip()[: -len(last)]
    return asking, given


_ME = frozenset(
    """
    i i'm i've i'd my me mine ich mein meine mir mich je j'ai mon ma mes moi yo mi mis
    """.split()  # noqa: SIM905  as in words.toml
)
_YOU = frozenset(
    """
    you your you're u du dein deine dir sie ihr tu ton ta tes vous votre tú tus usted
    """.split()  # noqa: SIM905  as in words.toml
)
_US = frozenset(
    """
    we our us we're wir unser unsere uns nous notre nos nosotros nuestro nuestra nuestros
    """.split()  # noqa: SIM905  as in words.toml
)
_IF = frozenset(
    """
    if given suppose consider assume when wenn angenommen gegeben si supposons supón dado
    """.split()  # noqa: SIM905  as in words.toml
)
_WHY = frozenset(
    """
    how why explain wie warum wieso erkläre comment pourquoi explique cómo como qué por
    """.split()  # noqa: SIM905  as in words.toml
)
_WHAT = frozenset(
    """
    what what's whats which who where when was welche welches wer wo wann quel quelle que
    quoi où qui quand cuál cuándo quién dónde
    """.split()  # noqa: SIM905  as in words.toml
)
_IS = frozenset(
    """
    is are was were does do did can could should would will has have ist sind kann soll est
    sont peut es son puede hay
    """.split()  # noqa: SIM905  as in words.toml
)
_TO = frozenset(
    """
    to into in auf ins en al vers aus from
    """.split()  # noqa: SIM905  as in words.toml
)
_THAN = frozenset(("than", "as", "als", "que"))
