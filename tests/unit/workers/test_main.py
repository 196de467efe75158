"""`python -m headgate.workers`: what it brings into a worker's memory, and what it understands."""

import subprocess
import sys

import pytest

from headgate.workers.__main__ import main
from tests import ROOT

_IMPORTED = """
import sys
import headgate.workers.__main__, headgate.workers.bootstrap, headgate.workers.celery.pool
import celery.apps.worker
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""

UNNEEDED = ("aiohttp", "anthropic", "flower", "httpx2", "openai", "prompt_toolkit", "tornado")


def test_an_idle_worker_has_imported_no_http_client_no_sdk_and_no_other_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _IMPORTED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = ended.stdout.split()
    assert "sqlalchemy" in imported
    assert set(UNNEEDED).isdisjoint(imported)


@pytest.mark.parametrize(
    "words", [["--concurrency", "many"], ["--loglevel", "loud"], ["--nothing"]]
)
def test_a_wrong_option_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(words)
    assert refused.value.code == 2
    assert words[0] in capsys.readouterr().err
