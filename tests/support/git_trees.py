"""The trees of earlier commits, for tests that run them beside today's."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests import ROOT


def tree_of(commit: str, folder: Path) -> Path:
    """Unpack the package of a commit, whose parts are links; skip the test if git lacks it."""
    parts = ("headgate", "producer", "workers", "shared", "migrations")
    argv = ["git", "archive", commit, *parts]
    packed = subprocess.run(argv, cwd=ROOT, capture_output=True, check=False)
    if packed.returncode != 0:
        pytest.skip(f"git has no {commit} here: {packed.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tree:
        tree.extractall(folder, filter="data")
    return folder
