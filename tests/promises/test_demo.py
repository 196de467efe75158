"""`make demo`: the whole example batch, with nothing set up."""

import re
import sys
from decimal import Decimal
from pathlib import Path

import psutil
import pytest

from tests.support import installation
from tests.support.child import ChildProcess, wait_until

PROMPTS = 1_000


@pytest.mark.slow
def test_the_demo_answers_every_prompt_and_its_bill_adds_up(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "headgate.producer.cli.demo"]
    demo = ChildProcess(argv, log_path=tmp_path / "demo.log", cwd=tmp_path)
    with installation.ended_afterwards(demo):
        demo.start()
        assert installation.exit_code(demo, 90) == 0, demo.log_end()
    said = demo.log()
    sums = re.search(r"(\d+) succeeded \+ (\d+) failed = (\d+) of (\d+)", said)
    assert sums is not None, said
    succeeded, failed, ended, wanted = map(int, sums.groups())
    assert succeeded + failed == ended == wanted == PROMPTS
    money = re.search(r"the ledger says (\S+) USD, the simulated vendors billed (\S+) USD", said)
    assert money is not None, said
    assert Decimal(money[1]) == Decimal(money[2]) > 0
    assert "provider refusals" in said

    answers = tmp_path / ".headgate" / "demo" / "answers.jsonl"
    assert str(answers) in said
    lines = installation.lines_of(answers)
    assert {line["headgate"]["line"] for line in lines} == set(range(1, PROMPTS + 1))
    assert len(lines) == PROMPTS
    assert sum(line["error"] is None for line in lines) == succeeded
    assert any(line["headgate"]["cached"] == "exact" for line in lines)
    assert {line["headgate"]["provider"] for line in lines if not line["error"]} == {
        "openai",
        "anthropic",
    }

    wait_until(lambda: not _of(tmp_path), 20, "all that the demo started to end")
    assert list(answers.parent.iterdir()) == [answers]


def _of(folder: Path) -> list[int]:
    """Processes that run in the folder, or were told of it."""
    found = []
    for process in psutil.process_iter():
        try:
            told = " ".join(process.cmdline()) + process.cwd()
            if str(folder) in told and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found
