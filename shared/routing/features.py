"""What a prompt shows on its surface: words of each kind, numbers, code marks, how much is asked.

Pure. `Lexicon` is made from `words.toml`; `read` gives the features by which `kinds.py` and
`complexity.py` judge. A prompt of any length costs the same: only its beginning and end are read.
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
"""Words that are looked up; more of them say little that is new."""

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
_THAN = frozenset(("than", "as", "als", "que"))
_UNIT = re.compile(
    r"\d\s?(?:km|m|cm|mm|kg|g|l|litres?|liters?|h|hours?|min|minutes?|s|days?|weeks?|months?|years?"
    r"|km/h|mph|k|m²|kWh|°C|Stunden|Tage|jours|heures|horas|días)\b"
)


Phrase = tuple[tuple[str, ...], str]


class Lexicon:
    """The tables of words, laid out for looking up."""

    MOST_KNOWN = 20_000

    def __init__(self, tables: Mapping[str, str]) -> None:
        """From a text of entries for each feature; see the head of words.toml."""
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
        """The features that the word alone speaks for."""
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
            if len(self._known) >= self.MOST_KNOWN:
                self._known.clear()
            known = self._known[word] = tuple(dict.fromkeys(found))
        return known

    def of_phrase(self, tokens: Sequence[str], n: int) -> Iterator[str]:
        """The features of the phrases that begin at place `n`."""
        for rest, feature in self._phrases.get((tokens[n], tokens[n + 1]), ()):
            if not rest or tuple(tokens[n + 2 : n + 2 + len(rest)]) == rest:
                yield feature


@dataclass(frozen=True, slots=True)
class Features:
    """What was seen: a figure for each feature, about 0 to 3; `words`: some that stood for it."""

    values: Mapping[str, float]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read(text: str, lexicon: Lexicon) -> Features:
    """The features of this prompt."""
    whole = len(text)
    if whole > HEAD + TAIL:
        text = f"{text[:HEAD]}\n{text[-TAIL:]}"
    text = text.strip()
    said = [found["said"] for found in _QUOTED.finditer(text)]
    quoted = sum(len(part) for part in said)
    bare = _FENCED.sub(" ", _QUOTED.sub(" ", text))
    ticked = len(_TICKED.findall(bare))
    asking, given = _parted(_TICKED.sub(" ", bare))
    tokens = WORD.findall(asking.lower())[:WORDS_READ]
    sums: dict[str, float] = {}
    words: dict[str, list[str]] = {}
    _look_up(tokens, 1.0, lexicon, sums, words)
    rest = WORD.findall(given.lower())[: max(0, WORDS_READ - len(tokens))]
    _look_up(rest, 0.35, lexicon, sums, words)
    values = {name: min(3.0, math.log2(1 + total)) for name, total in sums.items()}
    numbers = len(_NUMBER.findall(bare))
    code = len(_CODE_MARK.findall(bare)) + 2 * text.count("```")
    asked = len(tokens)
    sentences = [part for part in _SENTENCE.split(asking) if len(part.strip()) > 3]
    marks = {
        "numbers": math.log2(1 + numbers) / 2,
        "number_runs": min(2.0, len(_RUN.findall(bare))),
        "money": min(2.0, math.log2(1 + len(_MONEY.findall(bare)))),
        "units": min(2.0, math.log2(1 + len(_UNIT.findall(bare)))),
        "code_marks": min(3.0, math.log2(1 + code)),
        "math_marks": min(2.0, math.log2(1 + len(_MATH_MARK.findall(bare)))),
        "ticks": min(1.5, ticked),
        "quote": 1.0 if said else 0.0,
        "long_quote": min(2.0, quoted / 150),
        "given_text": min(2.0, math.log2(1 + len(given) / 40)) if given else 0.0,
        "given_lines": min(2.0, math.log2(1 + given.count("\n")) / 2),
        "question": 1.0 if asking.rstrip().endswith("?") else 0.0,
        "questions": min(2.0, asking.count("?") - 1) if asking.count("?") > 1 else 0.0,
        "exclaims": 1.0 if "!" in asking else 0.0,
        "asked_words": math.log2(1 + asked) / 2,
        "few_words": 1.0 if asked <= 7 and not given else 0.0,
        "sentences": min(3.0, math.log2(1 + len(sentences))),
        "commas": min(2.5, math.log2(1 + asking.count(",")) / 1.5),
        "whole_length": math.log2(1 + whole / 100),
        "of_me": min(2.0, sum(word in _ME for word in tokens) / 2),
        "of_you": min(2.0, sum(word in _YOU for word in tokens) / 2),
        "of_us": 1.0 if any(word in _US for word in tokens) else 0.0,
        "begins_if": 1.0 if tokens[:1] and tokens[0] in _IF else 0.0,
        "begins_why": 1.0 if tokens[:1] and tokens[0] in _WHY else 0.0,
        "begins_what": 1.0 if tokens[:1] and tokens[0] in _WHAT else 0.0,
        "begins_is": 1.0 if tokens[:1] and tokens[0] in _IS else 0.0,
        "learned_endings": min(2.0, sum(_LEARNED.search(w) is not None for w in tokens) / 2),
        "names": min(2.0, len(_NAME.findall(asking)) / 2),
        "ifs": min(2.0, sum(word in _IF for word in tokens)),
        "thans": min(2.0, sum(word in _THAN for word in tokens)),
        "nothing": 0.0 if sums else 1.0,
        "long_words": sum(len(w) > 9 for w in tokens) / max(6, asked) * 5,
    }
    values.update({name: value for name, value in marks.items() if value})
    if "language" in values and ("translation_say" in values or _is_to(tokens, lexicon)):
        values["into_language"] = 1.0
    return Features(values, {name: tuple(seen) for name, seen in words.items()})


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


def _is_to(tokens: Sequence[str], lexicon: Lexicon) -> bool:
    return any(
        before in _TO and "language" in lexicon.of_word(word) for before, word in pairwise(tokens)
    )


def _look_up(
    tokens: Sequence[str], weight: float, lexicon: Lexicon, sums: dict[str, float],
    words: dict[str, list[str]],
) -> None:  # fmt: skip
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


def _parted(text: str) -> tuple[str, str]:
    """What is asked, and what is given to it: the text after a colon or line, if it is long.

    A question at the very end belongs to what is asked, also after what was given.
    """
    cut = re.search(r":\s*\n|\n\s*\n|:\s(?=.{40})|\n", text, re.DOTALL)
    if cut is None or cut.start() > 500 or len(text) - cut.end() < 30:
        return text, ""
    asking, given = text[: cut.start()], text[cut.end() :]
    last = re.split(r"(?<=[.!?])\s+|\n", given.rstrip())[-1]
    if last.endswith("?") and last != given:
        return f"{asking}. {last}", given.rstrip()[: -len(last)]
    return asking, given
