"""What a prompt is about and how hard it is, from features that can be told: nine kinds, a score.

Pure. Each kind has a weight for each feature (`weights.json`); the kind whose weighted sum is
highest is it. The score of complexity is a weighted sum as well, from 0 to 12: low to 3, medium to
7, high from 8. `tests/routing/fit.py` fits both tables, drawn towards figures that were set by
hand; `reasons` are the features that decided, with the words that stood for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from headgate.shared.job.request import Kind
from headgate.shared.routing.features import Features, Lexicon, read

KINDS: tuple[Kind, ...] = get_args(Kind)
Level = Literal["low", "medium", "high"]
LEVELS: tuple[Level, ...] = get_args(Level)

MOST_SCORE = 12
LOW_TO, MEDIUM_TO = 3, 7
CLOSE = 2.0
"""A lead over the second kind below which an instruction of the system decides with it."""

SAYS: Mapping[str, str] = {
    "translation_ask": "asks for a translation", "translation_say": "asks how to say it",
    "language": "names a language", "into_language": "names a language to put it into",
    "summary_ask": "asks for a summary", "summary_form": "says how short",
    "creative_ask": "asks to invent", "creative_form": "names a form of writing",
    "code_language": "names a language or tool of programmers", "code_matter": "speaks of code",
    "code_marks": "holds code", "ticks": "quotes code",
    "analysis_measure": "asks for a measure", "analysis_matter": "speaks of figures",
    "number_runs": "holds a row of numbers", "numbers": "holds numbers",
    "reasoning_ask": "asks to reason", "reasoning_matter": "is set as a problem",
    "math_marks": "holds mathematics", "units": "holds quantities", "money": "holds sums or shares",
    "research_ask": "asks for findings", "research_matter": "names a subject of science",
    "chat_greeting": "greets", "chat_life": "asks as in a talk", "life": "is of everyday life",
    "chat_support": "asks as a customer", "of_you": "speaks to you", "of_me": "speaks of the asker",
    "image_shown": "points at an image", "image_word": "mentions an image",
    "given_text": "gives a text to work on", "long_quote": "quotes a text", "quote": "quotes",
    "deep": "asks to build or prove", "demanding": "asks for depth", "simple": "asks for little",
    "asked_thing": "asks several things",
    "asked_words": "length of what is asked", "whole_length": "length of the whole",
    "few_words": "is very short", "sentences": "number of sentences", "nothing": "bears no mark",
    "long_words": "uses long words", "learned_endings": "uses learned words",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a prompt is about (`kind`), how hard (`score`, `level`), and the `reasons` for both."""

    kind: Kind
    score: int
    level: Level
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """The fitted tables: for each feature a weight for each of KINDS, and one for the score."""

    kinds: Mapping[str, Sequence[float]]
    score: Mapping[str, float]

    def sums(self, values: Mapping[str, float]) -> list[float]:
        """How much speaks for each kind."""
        sums = list(self.kinds["bias"])
        for feature, value in values.items():
            weights = self.kinds.get(feature)
            if weights is not None:
                for n, weight in enumerate(weights):
                    sums[n] += weight * value
        return sums

    def kind(self, values: Mapping[str, float]) -> Kind:
        """The kind for which most speaks."""
        sums = self.sums(values)
        return KINDS[sums.index(max(sums))]

    def complexity(self, values: Mapping[str, float], kind: Kind) -> int:
        """The score of complexity, 0 to MOST_SCORE."""
        weights = self.score
        total = weights["bias"] + weights.get(f"is_{kind}", 0.0)
        total += sum(value * weights.get(feature, 0.0) for feature, value in values.items())
        return max(0, min(MOST_SCORE, round(total)))


def level_of(score: int) -> Level:
    """Low to 3, medium to 7, high from 8."""
    return "low" if score <= LOW_TO else "medium" if score <= MEDIUM_TO else "high"


def judge(
    text: str,
    lexicon: Lexicon,
    weights: Weights,
    *,
    image: bool = False,
    kind: Kind | None = None,
    instruction: str = "",
) -> Judgement:
    """What this prompt is about and how hard it is.

    `image`: the message carries one, which makes it a task for vision. `kind`: what the caller
    says. `instruction`: of the system; heard where the prompt alone leaves the kind open.
    """
    seen = read(text, lexicon)
    values = seen.values
    found = kind
    reasons: list[str] = []
    if found is not None:
        reasons.append(f"{found}: the caller says so")
    elif image:
        found = "vision"
        reasons.append("vision: the message carries an image")
    else:
        sums = weights.sums(values)
        if instruction and _lead(sums) < CLOSE:
            told = read(instruction, lexicon)
            sums = [a + b for a, b in zip(sums, weights.sums(told.values), strict=True)]
        best = sums.index(max(sums))
        second = max((n for n in range(len(sums)) if n != best), key=sums.__getitem__)
        found = KINDS[best]
        reasons += _told(found, best, second, seen, weights)
    score = weights.complexity(values, found)
    reasons.append(_why_so_hard(score, seen, weights))
    return Judgement(found, score, level_of(score), tuple(reasons))


def _lead(sums: Sequence[float]) -> float:
    first, second = sorted(sums, reverse=True)[:2]
    return first - second


def _told(kind: Kind, best: int, second: int, seen: Features, weights: Weights) -> list[str]:
    """The features that put this kind before the second, the strongest first."""
    gains = [
        (value * (row[best] - row[second]), name)
        for name, value in seen.values.items()
        if (row := weights.kinds.get(name)) is not None and name in SAYS
    ]
    strongest = [name for gain, name in sorted(gains, reverse=True)[:3] if gain > 0.3]
    words = "; ".join(_said(name, seen) for name in strongest) or "nothing points elsewhere"
    return [f"{kind} rather than {KINDS[second]}: {words}"]


def _why_so_hard(score: int, seen: Features, weights: Weights) -> str:
    gains = [
        (value * weights.score[name], name)
        for name, value in seen.values.items()
        if name in weights.score and name in SAYS
    ]
    most = sorted(gains, key=lambda gain: -abs(gain[0]))[:3]
    words = "; ".join(f"{_said(name, seen)} ({gain:+.1f})" for gain, name in most if gain)
    return f"complexity {score} ({level_of(score)}): {words or 'nothing special'}"


def _said(name: str, seen: Features) -> str:
    words = ", ".join(seen.words.get(name, ()))
    return f"{SAYS[name]} ({words})" if words else SAYS[name]
