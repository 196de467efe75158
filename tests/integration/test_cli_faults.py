"""The command line under a hostile user: streams that are closed or full, homes that are none."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.headgate import PROGRAM


def under_sh(words: str, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """How `headgate` with these words of the shell ended."""
    return subprocess.run(
        ["/bin/sh", "-c", f'"$@" {words}', "sh", *PROGRAM],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """Settings of an installation that nobody has used yet."""
    return {"HEADGATE_HOME": str(tmp_path / "home")}


@pytest.mark.parametrize(
    ("words", "code", "fault"),
    [
        ("submit <&-", 2, "prompt"),
        ("models >&-", 0, ""),
        ("settings >&- <&- 2>&-", 0, ""),
        ("nonsense 2>/dev/full", 2, ""),
        ("models >/dev/full", 1, "standard output: cannot be written: No space left"),
        ("models --json >/dev/full", 1, "standard output: cannot be written: No space left"),
        ("batch --help >/dev/full", 1, "standard output: cannot be written: No space left"),
    ],
)
def test_closed_and_full_streams_are_no_internal_fault(
    env: dict[str, str], words: str, code: int, fault: str
) -> None:
    ended = under_sh(words, env)
    assert ended.returncode == code, ended
    assert fault in ended.stderr
    for unwanted in ("Traceback", "internal fault", "Exception ignored"):
        assert unwanted not in ended.stderr
