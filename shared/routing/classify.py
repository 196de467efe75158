"""Judges what a prompt is about (one of nine kinds) and how complex it is, by its features. Pure.

Each kind has a weight for each feature (`weights.json`), and the kind with the highest weighted sum
wins. The complexity is a weighted sum too, from 0 to 12: up to 3 is low, up to 7 medium, from 8 on
high. `tests/routing/fit.py` fits both tables to labelled prompts, drawn towards figures that were
set by hand. The reasons name the features that decided, with the words that showed them.
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

MAX_SCORE = 12
LOW_TO, MEDIUM_TO = 3, 7
CLOSE = 2.0
"""With a smaller lead over the second kind, the system's instruction decides with the prompt."""

SAYS: Mapping[str, str] = {
    "translation_ask": "asks for a translation", "translation_say": "asks how to say it",
    "language": "names a language", "into_language": "names a target language",
    "summary_ask": "asks for a summary", "summary_form": "says how short",
    "creative_ask": "asks to invent", "creative_form": "names a form of writing",
    "code_language": "names a language or tool of programmers", "code_matter": "speaks of code",
    "code_marks": "contains code", "ticks": "quotes code",
    "analysis_measure": "asks for a measure", "analysis_matter": "speaks of figures",
    "number_runs": "contains a row of numbers", "numbers": "contains numbers",
    "reasoning_ask": "asks to reason", "reasoning_matter": "poses a problem",
    "math_marks": "contains mathematics", "units": "contains quantities",
    "money": "contains money or shares",
    "research_ask": "asks for findings", "research_matter": "names a subject of science",
    "chat_greeting": "greets", "chat_life": "is small talk", "life": "is about everyday life",
    "chat_support": "asks as a customer", "of_you": "addresses the model",
    "of_me": "speaks of the asker",
    "image_shown": "points at an image", "image_word": "mentions an image",
    "given_text": "gives a text to work on", "long_quote": "quotes a text", "quote": "quotes",
    "deep": "asks to build or prove", "demanding": "asks for depth", "simple": "asks for little",
    "asked_thing": "asks several things",
    "asked_words": "length of what is asked", "whole_length": "length of the whole",
    "few_words": "is very short", "sentences": "number of sentences",
    "nothing": "has none of the known words",
    "long_words": "uses long words", "learned_endings": "uses scientific words",
}  # fmt: skip
"""What a feature says of a prompt, in the words of a reason."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a prompt is about (`kind`), its complexity (`score`, `level`), and the `reasons`."""

    kind: Kind
    score: int
    level: Level
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Weights:
    """The fitted tables: each feature has a weight for each of KINDS, and one for the score."""

    kinds: Mapping[str, Sequence[float]]
    score: Mapping[str, float]

    def sums(self, values: Mapping[str, float]) -> list[float]:
        """Return the weighted sum of each kind, in the order of KINDS."""
        sums = list(self.kinds["bias"])
        for feature, value in values.items():
            weights = self.kinds.get(feature)
            if weights is not None:
                for n, weight in enumerate(weights):
                    sums[n] += weight * value
        return sums

    def kind(self, values: Mapping[str, float]) -> Kind:
        """Return the kind with the highest sum."""
        sums = self.sums(values)
        return KINDS[sums.index(max(sums))]

    def complexity(self, values: Mapping[str, float], kind: Kind) -> int:
        """Return the score of complexity, 0 to MAX_SCORE."""
        weights = self.score
        total = weights["bias"] + weights.get(f"is_{kind}", 0.0)
        total += sum(value * weights.get(feature, 0.0) for feature, value in values.items())
        return max(0, min(MAX_SCORE, round(total)))


def level_of(score: int) -> Level:
    """Return the level of a score: low up to 3, medium up to 7, high from 8 on."""
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
    """Return what this prompt is about and how complex it is.

    `kind` is what the caller says, and decides. A message with an `image` is a task for vision.
    The system's `instruction` counts only if the prompt alone leaves the kind open.
    """
    features = read(text, lexicon)
    if kind is not None:
        why = f"{kind}: the caller says so"
    elif image:
        kind, why = "vision", "vision: the message carries an image"
    else:
        sums = weights.sums(features.values)
        if instruction and _lead(sums) < CLOSE:
            values = read(instruction, lexicon).values
            sums = [a + b for a, b in zip(sums, weights.sums(values), strict=True)]
        best, second = sorted(range(len(sums)), key=lambda n: -sums[n])[:2]
        kind, why = KINDS[best], _why_this_kind(best, second, features, weights)
    score = weights.complexity(features.values, kind)
    reasons = (why, _why_this_score(score, features, weights))
    return Judgement(kind, score, level_of(score), reasons)


def _lead(sums: Sequence[float]) -> float:
    first, second = sorted(sums, reverse=True)[:2]
    return first - second


def _why_this_kind(best: int, second: int, features: Features, weights: Weights) -> str:
    """Return the features that put the best kind before the second, the strongest first."""
    gains = [
        (value * (row[best] - row[second]), name)
        for name, value in features.values.items()
        if (row := weights.kinds.get(name)) is not None and name in SAYS
    ]
    strongest = [name for gain, name in sorted(gains, reverse=True)[:3] if gain > 0.3]
    words = "; ".join(_in_words(name, features) for name in strongest) or "nothing points elsewhere"
    return f"{KINDS[best]} rather than {KINDS[second]}: {words}"


def _why_this_score(score: int, features: Features, weights: Weights) -> str:
    gains = [
        (value * weights.score[name], name)
        for name, value in features.values.items()
        if name in weights.score and name in SAYS
    ]
    strongest = sorted(gains, key=lambda gain: -abs(gain[0]))[:3]
    words = "; ".join(
        f"{_in_words(name, features)} ({gain:+.1f})" for gain, name in strongest if gain
    )
    return f"complexity {score} ({level_of(score)}): {words or 'nothing special'}"


def _in_words(name: str, features: Features) -> str:
    words = ", ".join(features.words.get(name, ()))
    return f"{SAYS[name]} ({words})" if words else SAYS[name]
