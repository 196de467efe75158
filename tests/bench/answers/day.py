"""A day of arrivals: read from files, or made; and what a cache without faults would save of it.

A folder with `replay.jsonl` (`t_s`, `prompt_id`, `tenant`, `user`, `priority`, `output_tokens`) and
`prompts.jsonl` (`id`, `prompt`) is a day. The one that is made has the same shares: of its
arrivals 60 % are new, 35 % repeat a prompt of their tenant of the last 1,800 s, 5 % are a double
click of the same user within 5 s.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low
from typing import Any

TENANTS, USERS = 20, 500
REPEATED, CLICKED = 0.35, 0.05
REPEAT_S, CLICK_S = 1800.0, 5.0

ASKED = (
    "Summarise the minutes of the {} about {} in three sentences.",
    "Write a Python function that sorts the {} by {} and explain its cost.",
    "Translate into French: the {} has put off its decision on {}.",
    "Why would a {} do better without {}? Reason step by step and weigh both sides.",
    "Write a short poem about a {} that dreams of {}.",
    "What is a {}, and what has it to do with {}?",
)
WHO = ("chess club", "bakery", "harbour office", "school library", "film archive", "orchestra",
       "theatre", "bicycle shop", "observatory", "post office", "water board")  # fmt: skip
WHAT = ("the weather", "old maps", "late deliveries", "the new timetable", "rising rents",
        "lost keys", "night work", "its accounts", "volunteers", "spare parts")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of the day; `at_s` seconds after midnight."""

    at_s: float
    prompt: str
    tenant: str
    user: str
    priority: str
    max_tokens: int


def read(folder: Path) -> list[Arrival]:
    """The arrivals of a folder. A prompt is always asked with one `max_tokens`: the median of the
    output tokens of its arrivals, which are nearly equal, since equal requests have equal limits.
    """
    prompts = {one["id"]: one["prompt"] for one in _lines(folder / "prompts.jsonl")}
    lines = _lines(folder / "replay.jsonl")
    lengths: dict[str, list[int]] = defaultdict(list)
    for one in lines:
        lengths[one["prompt_id"]].append(one["output_tokens"])
    return [
        Arrival(
            one["t_s"], prompts[one["prompt_id"]], one["tenant"], one["user"], one["priority"],
            median_low(lengths[one["prompt_id"]]),
        )
        for one in lines
    ]  # fmt: skip


def made(count: int = 1_000, hours: float = 2.4, seed: int = 4) -> list[Arrival]:
    """So many arrivals within so many hours, in order of time."""
    chance = random.Random(seed)  # noqa: S311  repeatable, not secret
    found: list[Arrival] = []
    at_s = sorted(chance.uniform(0, hours * 3600) for _ in range(count))
    for n, now_s in enumerate(at_s):
        drawn = chance.random()
        recent = [one for one in found[-count // 4 :] if now_s - one.at_s < REPEAT_S]
        if recent and drawn < CLICKED:
            one = recent[-1]
            click_s = min(now_s, one.at_s + chance.uniform(0.1, CLICK_S * 0.9))
            found.append(
                Arrival(click_s, one.prompt, one.tenant, one.user, one.priority, one.max_tokens)
            )
            continue
        if recent and drawn < CLICKED + REPEATED:
            one = chance.choice(recent)
            tenant, prompt, tokens = one.tenant, one.prompt, one.max_tokens
        else:
            asked = chance.choice(ASKED).format(chance.choice(WHO), chance.choice(WHAT))
            tenant = f"t{chance.randrange(TENANTS):02d}"
            prompt, tokens = f"{asked} ({n})", round(chance.lognormvariate(5.5, 0.6))
        priority = chance.choices(("interactive", "standard", "bulk"), (5, 3, 2))[0]
        user = f"u{chance.randrange(USERS):03d}"
        found.append(Arrival(now_s, prompt, tenant, user, priority, max(1, tokens)))
    return sorted(found, key=lambda one: one.at_s)


def spared(
    arrivals: Sequence[Arrival], ttl_s: Callable[[Arrival], float], usd: Callable[[Arrival], float]
) -> float:
    """The share of the money that a cache without faults saves in the day's own time: each
    tenant's answers serve for `ttl_s` from the moment at which they were asked for, and no longer.
    """
    until: dict[tuple[str, str], float] = {}
    saved = 0.0
    for one in arrivals:
        if until.get((one.tenant, one.prompt), -1.0) >= one.at_s:
            saved += usd(one)
        else:
            until[one.tenant, one.prompt] = one.at_s + ttl_s(one)
    return saved / sum(map(usd, arrivals))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
