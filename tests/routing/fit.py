"""Fits the tables by which routing judges prompts, and checks them on prompts held out.

    python -m tests.routing.fit            # five-fold cross-check, with the confusion matrices
    python -m tests.routing.fit --write    # fits on all and writes shared/routing/weights.json

`prompts.jsonl` is the labelled set; `own.jsonl` are further prompts of our own, which teach but are
never counted. Kinds: multinomial logistic regression, drawn towards the weights set by hand in
START. Complexity: ridge regression on a target for each level.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from headgate.shared.job.request import Kind
from headgate.shared.routing import router
from headgate.shared.routing.classify import KINDS, LEVELS, Level, Weights, level_of
from headgate.shared.routing.features import read

HERE = Path(__file__).parent
FOLDS = 5
DRAWN, STEPS, RATE = 2.0, 40, 0.3
RIDGE = 5.0
TARGETS: Mapping[str, float] = {"low": 0.7, "medium": 5.3, "high": 9.7}

START: Mapping[str, Mapping[Kind, float]] = {
    "translation_ask": {"translation": 3.5}, "translation_say": {"translation": 1.5},
    "language": {"translation": 1.0}, "into_language": {"translation": 1.5},
    "summary_ask": {"summary": 2.5}, "summary_form": {"summary": 0.5},
    "creative_ask": {"creative": 1.5}, "creative_form": {"creative": 2.0},
    "code_language": {"code": 1.8, "translation": -0.5}, "code_matter": {"code": 1.0},
    "code_marks": {"code": 0.8}, "ticks": {"code": 1.0},
    "analysis_measure": {"analysis": 1.3}, "analysis_matter": {"analysis": 0.6},
    "number_runs": {"analysis": 1.2}, "money": {"analysis": 0.3},
    "numbers": {"analysis": 0.5, "reasoning": 0.5, "chat": -0.6},
    "reasoning_ask": {"reasoning": 1.0}, "reasoning_matter": {"reasoning": 0.8},
    "units": {"reasoning": 0.4}, "begins_if": {"reasoning": 0.6}, "math_marks": {"reasoning": 0.8},
    "thans": {"reasoning": 0.4}, "ifs": {"reasoning": 0.4},
    "research_ask": {"research": 1.3}, "research_matter": {"research": 1.2},
    "long_words": {"research": 0.3}, "begins_why": {"research": 0.3},
    "learned_endings": {"research": 0.8},
    "chat_greeting": {"chat": 1.5}, "chat_life": {"chat": 0.8}, "chat_support": {"chat": 1.2},
    "life": {"chat": 0.5}, "few_words": {"chat": 0.3}, "of_me": {"chat": 0.4},
    "of_you": {"chat": 0.5}, "nothing": {"chat": 1.2}, "bias": {"chat": 0.8},
    "image_shown": {"vision": 2.5}, "image_word": {"vision": 1.0},
    "quote": {"translation": 0.3, "summary": 0.2}, "given_text": {"summary": 0.5, "code": 0.2},
    "long_quote": {"summary": 0.7, "translation": 0.3},
}  # fmt: skip

SCORED = (
    "bias", "asked_words", "sentences", "questions", "asked_thing", "demanding", "deep", "simple",
    "whole_length", "given_text", "given_lines", "long_quote", "numbers", "number_runs",
    "few_words", "long_words", "of_us", "summary_form", "quote", "research_ask", "reasoning_ask",
    "creative_form", *(f"is_{kind}" for kind in KINDS),
)  # fmt: skip


class Labelled(NamedTuple):
    """A prompt that people have judged, and what it shows."""

    prompt: str
    image: bool
    kind: Kind
    level: Level
    values: Mapping[str, float]


@cache
def labelled(name: str) -> tuple[Labelled, ...]:
    """The prompts of this file."""
    found = []
    for line in (HERE / name).read_text().splitlines():
        one = json.loads(line)
        values = read(one["prompt"], router.lexicon()).values
        found.append(Labelled(one["prompt"], one["image"], one["kind"], one["complexity"], values))
    return tuple(found)


def fit(teachers: Sequence[Labelled]) -> Weights:
    """The tables that these prompts teach."""
    return Weights(_kinds(teachers), _score(teachers))


def _kinds(teachers: Sequence[Labelled]) -> dict[str, list[float]]:
    n = len(KINDS)
    names = sorted({name for one in teachers for name in one.values} | set(START))
    drawn_to = {name: [START.get(name, {}).get(kind, 0.0) for kind in KINDS] for name in names}
    weights = {name: list(row) for name, row in drawn_to.items()}
    steps = {name: [1e-6] * n for name in names}
    rows = [([*one.values.items(), ("bias", 1.0)], KINDS.index(one.kind)) for one in teachers]
    for _ in range(STEPS):
        slope = {
            name: [DRAWN * (a - b) for a, b in zip(weights[name], drawn_to[name], strict=True)]
            for name in names
        }
        for values, right in rows:
            sums = [0.0] * n
            for name, value in values:
                sums = [s + w * value for s, w in zip(sums, weights[name], strict=True)]
            most = max(sums)
            odds = [math.exp(s - most) for s in sums]
            whole = sum(odds)
            off = [one / whole for one in odds]
            off[right] -= 1
            for name, value in values:
                slope[name] = [g + o * value for g, o in zip(slope[name], off, strict=True)]
        for name in names:
            for k, g in enumerate(slope[name]):
                steps[name][k] += g * g
                weights[name][k] -= RATE * g / math.sqrt(steps[name][k])
    return {name: [round(w, 3) for w in row] for name, row in weights.items()}


def _score(teachers: Sequence[Labelled]) -> dict[str, float]:
    rows = [_scored(one.values, one.kind) for one in teachers]
    targets = [TARGETS[one.level] for one in teachers]
    n = len(SCORED)
    system = [
        [sum(row[i] * row[j] for row in rows) + (RIDGE if i == j and i else 1e-6 * (i == j))
         for j in range(n)]
        + [sum(row[i] * target for row, target in zip(rows, targets, strict=True))]
        for i in range(n)
    ]  # fmt: skip
    return {name: round(w, 3) for name, w in zip(SCORED, _solved(system), strict=True)}


def _scored(values: Mapping[str, float], kind: Kind) -> list[float]:
    own = {"bias": 1.0, f"is_{kind}": 1.0}
    return [own.get(name, values.get(name, 0.0)) for name in SCORED]


def _solved(system: list[list[float]]) -> list[float]:
    n = len(system)
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(system[r][i]))
        system[i], system[pivot] = system[pivot], system[i]
        for r in range(n):
            if r != i and system[r][i]:
                share = system[r][i] / system[i][i]
                system[r] = [a - share * b for a, b in zip(system[r], system[i], strict=True)]
    return [system[i][n] / system[i][i] for i in range(n)]


class Check(NamedTuple):
    """How prompts were judged that the judge had not learned from: (right, judged) to how many."""

    kinds: Counter[tuple[str, str]]
    levels: Counter[tuple[str, str]]
    wrong: list[tuple[Labelled, str, str]]


def accuracy(table: Counter[tuple[str, str]]) -> float:
    """The share that was judged right."""
    right = sum(n for (wanted, judged), n in table.items() if wanted == judged)
    return right / sum(table.values())


def cross_check(*, own: bool = True, seed: int = 1) -> Check:
    """Each fifth of the labelled set, judged by what the other four (and our own) teach."""
    prompts = labelled("prompts.jsonl")
    check = Check(Counter(), Counter(), [])
    for fold in _folds(prompts, seed):
        held_out = set(fold)
        teachers = [one for n, one in enumerate(prompts) if n not in held_out]
        weights = fit([*teachers, *(labelled("own.jsonl") if own else ())])
        for n in fold:
            one = prompts[n]
            kind: Kind = "vision" if one.image else weights.kind(one.values)
            level = level_of(weights.complexity(one.values, kind))
            check.kinds[one.kind, kind] += 1
            check.levels[one.level, level] += 1
            if kind != one.kind:
                check.wrong.append((one, kind, level))
    return check


def _folds(prompts: Sequence[Labelled], seed: int) -> list[list[int]]:
    """Five parts with as many of each kind."""
    chance = random.Random(seed)  # noqa: S311  no secret
    folds: list[list[int]] = [[] for _ in range(FOLDS)]
    place = 0
    for kind in KINDS:
        of_kind = [n for n, one in enumerate(prompts) if one.kind == kind]
        chance.shuffle(of_kind)
        for n in of_kind:
            folds[place % FOLDS].append(n)
            place += 1
    return folds


def matrix(names: Sequence[str], table: Counter[tuple[str, str]]) -> str:
    """The confusion matrix: a row for what is right, a column for what was judged."""
    lines = [" " * 12 + "".join(f"{name[:6]:>7}" for name in names)]
    lines += [
        f"{row:<12}" + "".join(f"{table[row, column] or '.':>7}" for column in names)
        for row in names
    ]
    return "\n".join(lines)


def told(check: Check) -> str:
    """The confusion matrices, the accuracies, and the prompts whose kind was missed."""
    lines = [
        matrix(KINDS, check.kinds), f"kind: {accuracy(check.kinds):.3f}", "",
        matrix(LEVELS, check.levels), f"complexity: {accuracy(check.levels):.3f}", "",
    ]  # fmt: skip
    lines += [f"{one.kind} taken for {kind}: {one.prompt[:90]!r}" for one, kind, _ in check.wrong]
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str]) -> None:
    """The cross-check is printed; with `--write` the tables are written as well."""
    check = cross_check()
    sys.stdout.write(told(check))
    if "--write" in arguments:
        weights = fit([*labelled("prompts.jsonl"), *labelled("own.jsonl")])
        lines = [
            '{\n"kinds": {',
            ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in weights.kinds.items()),
            '},\n"score": ' + json.dumps(weights.score) + "\n}\n",
        ]
        router.WEIGHTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
