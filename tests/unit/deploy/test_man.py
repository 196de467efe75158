"""The man pages: one for each command, with its options and its example as they are."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from headgate.producer.cli.commands import COMMANDS
from tests import ROOT


@pytest.fixture(scope="module")
def man() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man", ROOT / "deploy" / "man.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_command_has_a_page_with_its_options_and_examples(
    man: ModuleType, tmp_path: Path
) -> None:
    pages = {path.name: path.read_text() for path in man.write(tmp_path)}
    names = {f"headgate-{name}.1" for name in COMMANDS}
    assert names <= pages.keys()
    assert {"headgate.1", "headgate-batch-run.1", "headgate-dead-drop.1"} <= pages.keys()
    for name, text in pages.items():
        assert text.startswith(f'.TH "{name.removesuffix(".1").upper()}" 1'), name
        assert ".SH SYNOPSIS" in text
    retry = pages["headgate-retry.1"]
    assert "\\fB\\-\\-batch B\\fR\nAll jobs of this batch without an answer." in retry
    assert ".nf\nExamples:\n  headgate retry " in retry
    assert "\\fBheadgate\\-batch\\-run\\fR(1)" in pages["headgate-batch.1"]


def test_what_roff_would_take_for_a_command_is_text(man: ModuleType) -> None:
    assert man.escaped(".env\n'x'\na\\b -c") == "\\&.env\n\\&'x'\na\\eb \\-c"


def test_the_makefile_makes_them() -> None:
    done = subprocess.run(["/usr/bin/env", "make", "-n", "man"], cwd=ROOT, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert "deploy/man.py build/man" in done.stdout
