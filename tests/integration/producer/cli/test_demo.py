"""`python -m headgate.producer.cli.demo`: its examples; tests/promises/test_demo.py runs them."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from headgate.producer.batch.input import InputLine, read, scan
from headgate.producer.cli.demo import EXAMPLES
from headgate.producer.submit.prepare import Submitter
from headgate.shared import settings
from headgate.shared.catalog.catalog import load
from tests.support.child import BUSY


def run(folder: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Run the demo in this folder."""
    return subprocess.run(
        [sys.executable, "-m", "headgate.producer.cli.demo", *flags],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120 * BUSY,
        check=False,
    )


def test_the_examples_are_a_thousand_good_lines_some_of_them_equal() -> None:
    whole = scan(EXAMPLES)
    assert whole.lines == 1000
    submitter = Submitter(settings.load(), load())
    lines = list(read(EXAMPLES, {}, whole.sha256))
    envelopes = [submitter.prepare(line.fields)[0] for line in lines if isinstance(line, InputLine)]
    assert len(envelopes) == 1000
    same = Counter(envelope.request.model_dump_json(exclude={"priority"}) for envelope in envelopes)
    assert 80 <= 1000 - len(same) <= 120
    assert {load().model(envelope.model).provider for envelope in envelopes} == {
        "openai", "anthropic",
    }  # fmt: skip


def test_the_live_demo_without_a_key_says_which_to_set(tmp_path: Path) -> None:
    ended = run(tmp_path, "--live")
    assert ended.returncode == 2
    assert "OPENAI_API_KEY" in ended.stderr
