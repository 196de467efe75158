"""The official libraries' own tests of the addresses that the gateway serves.

They come from the source packages of the versions that `environments.py` has installed, and run
unmodified against the gateway, with `spec_mode.py` before it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.cases import Case, Outcome
from tests.conformance.spec_mode import spec_mode
from tests.support.child import BUSY

SUITE_S = 300


@dataclass(frozen=True)
class Suite:
    """Test files of one library. `unserved`: words of tests for addresses that are not served."""

    package: str
    base: str
    files: tuple[str, ...]
    unserved: tuple[str, ...] = ()


SUITES = (
    Suite("openai", "/v1", (
        "chat/test_completions.py", "test_embeddings.py", "test_moderations.py", "test_models.py",
        "test_responses.py", "responses/test_input_items.py", "responses/test_input_tokens.py",
    ), ("Completions and (retrieve or update or list or delete)", "Models and delete",
        "Responses and compact")),
    Suite("anthropic", "", ("test_messages.py", "test_models.py")),
)  # fmt: skip


EXAMPLES = (
    "background", "background_async", "background_streaming", "background_streaming_async",
    "streaming", "streaming_tools", "structured_outputs", "structured_outputs_tools",
)  # fmt: skip
"""Programs in the folder `examples/responses` of OpenAI's source package, which run unmodified."""


def examples(folder: Path, python: Path, url: str, key: str) -> Iterator[Case]:
    """Yield OpenAI's own examples of responses."""
    source = _source(folder, python, "openai")
    env = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": key}
    for name in EXAMPLES:
        path = source / "examples" / "responses" / f"{name}.py"
        yield Case(f"OpenAI's example responses/{name}", [str(python), str(path)], source, env)


def run_suites(folder: Path, python: Path, url: str) -> Iterator[Outcome]:
    """Yield a green outcome for each file with the tests that passed, and one for each red test."""
    for suite in SUITES:
        with spec_mode(url) as base:
            source = _source(folder, python, suite.package)
            yield from _run(suite, source, python, base + suite.base)


def _source(folder: Path, python: Path, package: str) -> Path:
    """Return the unpacked source package of the installed version."""
    asked = f"import {package}; print({package}.__version__)"
    version = subprocess.run(
        [str(python), "-c", asked], capture_output=True, text=True, check=True
    ).stdout.strip()
    target = folder / f"{package}-{version}"
    if not target.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        subprocess.run([*pip, "--dest", str(folder), f"{package}=={version}"], check=True)
        with tarfile.open(folder / f"{package}-{version}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
    return target


def _run(suite: Suite, source: Path, python: Path, base: str) -> Iterator[Outcome]:
    report = source / "report.xml"
    argv = [str(python), "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    if suite.unserved:
        argv += ["-k", " and ".join(f"not ({words})" for words in suite.unserved)]
    argv += [f"--junitxml={report}", *(f"tests/api_resources/{name}" for name in suite.files)]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "ANTHROPIC_"))}
    report.unlink(missing_ok=True)
    subprocess.run(
        argv, cwd=source, env={**env, "TEST_API_BASE_URL": base}, capture_output=True,
        timeout=SUITE_S * BUSY, check=False,
    )  # fmt: skip
    if not report.exists():
        yield Outcome(f"{suite.package} tests", "red", "they did not run")
        return
    yield from _outcomes(suite, report)
    for words in suite.unserved:
        yield Outcome(f"{suite.package} tests: {words}", "left out", "not served")


def _outcomes(suite: Suite, report: Path) -> Iterator[Outcome]:
    passed: dict[str, int] = defaultdict(int)
    failed: dict[str, str] = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 (pytest wrote it)
        place = case.get("classname", "").removeprefix("tests.api_resources.").rpartition(".")[0]
        fault = case.find("failure")
        if fault is None:
            fault = case.find("error")
        if fault is None:
            passed[place] += case.find("skipped") is None
        else:
            name = case.get("name", "").partition("[")[0]
            failed[f"{place} {name}"] = fault.get("message", "").splitlines()[0]
    for place, count in passed.items():
        yield Outcome(f"{suite.package} tests {place}", "green", f"{count} passed")
    for name, words in failed.items():
        yield Outcome(f"{suite.package} tests {name}", "red", words)
