"""The cases: a program of a client, the address it asks, and how it ended."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.conformance.environments import EXAMPLES, Programs
from tests.support.child import BUSY

EXPECTED = Path(__file__).parent / "expected.toml"
CASE_S = 60
ERROR = re.compile(r"[\w.]*(Error|Exception)\b")

ACROSS = {
    "openai": "claude-haiku-4-5",
    "anthropic": "gpt-4o-mini",
}
"""Which model of the other vendor the examples that read MODEL ask in a second run."""

COMPLY = [
    ("openai-chat", "gpt-4o-mini"),
    ("openai-chat", "gpt-5.4-mini"),
    ("openai-chat", "claude-haiku-4-5"),
    ("open-responses", "gpt-4o-mini"),
    ("open-responses", "claude-haiku-4-5"),
    ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "gpt-4o-mini"),
]

Word = Literal["green", "red", "left out"]


@dataclass(frozen=True, slots=True)
class Case:
    """A program that must end with 0. `is_comply`: it prints the outcomes of several cases."""

    name: str
    argv: list[str]
    cwd: Path
    env: dict[str, str] = field(default_factory=dict)
    is_comply: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended, and what there is to say about it."""

    name: str
    word: Word
    words: str = ""


def all_cases(programs: Programs, url: str, key: str) -> Iterator[Case]:
    """Yield all cases. The examples find address and key in the variables of their libraries."""
    env = {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": key,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": key,
    }
    for form, model in COMPLY:
        argv = [str(programs.llm_comply), "-u", f"{url}/v1", "-k", key, "-m", model]
        argv += ["--format", form, "--json"]
        yield Case(f"llm-comply {form} {model}", argv, EXAMPLES, {}, is_comply=True)
    for path in sorted((EXAMPLES / "python").glob("*.py")):
        yield from _examples("Python", path, [str(programs.python), str(path)], EXAMPLES, env)
    for path in sorted((EXAMPLES / "node").glob("*.mjs")):
        argv = [str(programs.node), path.name]
        yield from _examples("Node", path, argv, programs.node_folder, env)


def _examples(
    language: str, path: Path, argv: list[str], cwd: Path, env: dict[str, str]
) -> Iterator[Case]:
    name = f"{language} {path.stem}"
    yield Case(name, argv, cwd, env)
    if "MODEL" in path.read_text():
        other = ACROSS[path.stem.partition("_")[0]]
        yield Case(f"{name} on {other}", argv, cwd, {**env, "MODEL": other})


def run_case(case: Case) -> list[Outcome]:
    """Run the program and return how it ended, or how each of its cases did."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "ANTHROPIC_"))}
    try:
        done = subprocess.run(
            case.argv, cwd=case.cwd, env={**kept, **case.env}, check=False,
            capture_output=True, text=True, timeout=CASE_S * BUSY,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return [Outcome(case.name, "red", f"not ended after {CASE_S * BUSY} s")]
    if case.is_comply:
        return _comply_outcomes(case.name, done.stdout, done.stderr)
    if done.returncode == 0:
        return [Outcome(case.name, "green")]
    return [Outcome(case.name, "red", _error_in(done.stderr or done.stdout))]


def _comply_outcomes(name: str, printed: str, errors: str) -> list[Outcome]:
    try:
        results: list[dict[str, Any]] = json.loads(printed)["results"]
    except (ValueError, KeyError):
        return [Outcome(name, "red", _error_in(errors or printed))]
    words: dict[str, Word] = {"passed": "green", "skipped": "left out"}
    return [
        Outcome(
            f"{name} {one['id']}",
            words.get(one["status"], "red"),
            "; ".join(map(str, one.get("errors", []))),
        )
        for one in results
    ]


def _error_in(text: str) -> str:
    """Return the line that names the error. Node shows it before its stack, Python after it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in lines if ERROR.match(line)]
    is_python = any(line.startswith("Traceback") for line in lines)
    return (named or lines or ["no word"])[-1 if is_python else 0]


def read_expected() -> dict[str, str]:
    """Return the cases that may be red, with their reasons."""
    found = tomllib.loads(EXPECTED.read_text()).get("case", [])
    return {one["name"]: f"{one['reason']} ({one['documented']})" for one in found}


def answers(url: str) -> bool:
    """Return whether this address answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 (loopback)
            return bool(reply.status == 200)
    except (OSError, urllib.error.URLError):
        return False
