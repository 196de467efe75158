"""What README and docs/ tell to type works, on one installation with a simulated provider."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from headgate.shared.catalog import catalog
from headgate.shared.errors import HeadgateError
from tests import ROOT
from tests.docs.blocks import Block, blocks_of, pages
from tests.docs.shell import BlockFailed, Shell
from tests.support import installation
from tests.support.child import wait_until
from tests.support.servers import ValkeyServer, free_port, short_folder

EXAMPLES = ROOT / "tests" / "docs" / "files"


@pytest.fixture
def up(valkey: ValkeyServer, tmp_path: Path) -> Iterator[tuple[dict[str, str], str]]:
    """`headgate up --simulate` runs: the variables that lead to it, and its gateway's address."""
    with short_folder() as folder:
        home = folder / "home"
        url = f"redis://127.0.0.1:{valkey.port}/0"
        env = {"HEADGATE_HOME": str(home), "HEADGATE_REDIS_URL": url, "HEADGATE_MODEL": ""}
        port = free_port()
        argv = ["up", "--simulate", "--port", str(port)]
        child = installation.command(argv, env, tmp_path / "up.log")
        with installation.ended_afterwards(child):
            child.start()
            wait_until(lambda: "everything runs" in child.log(), 30, f"up:\n{child.log()}")
            yield env, f"127.0.0.1:{port}"
            child.stop()
        installation.nothing_is_left(home)


@pytest.mark.slow
def test_every_block_of_readme_and_docs_runs(
    up: tuple[dict[str, str], str], tmp_path: Path
) -> None:
    faults = []
    env, gateway = up
    for page in pages():
        folder = tmp_path / page.stem
        shutil.copytree(EXAMPLES, folder)
        shell = Shell(folder, dict(env), gateway)
        for block in blocks_of(page):
            try:
                run(block, shell)
            except (AssertionError, HeadgateError, TimeoutError) as fault:
                faults.append(f"{block.place}: {fault}")
    assert faults == [], "\n\n".join(faults)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("console", "$ make coffee\n"),
        ("console", "$ headgate no-such-command\n"),
        ("console", "$ headgate --version\nheadgate 9.9\n"),
        ("python", "raise SystemExit(3)\n"),
    ],
)
def test_a_block_that_does_not_do_what_it_says_fails(
    language: str, text: str, tmp_path: Path
) -> None:
    block = Block("page.md", 1, language, text)
    shell = Shell(tmp_path, {})
    with pytest.raises(BlockFailed):
        shell.run(block) if language == "console" else shell.run_python(block)


def run(block: Block, shell: Shell) -> None:
    """Write the file of the block, and carry out what it tells to do."""
    if block.file is not None:
        (shell.folder / block.file).write_text(block.text, encoding="utf-8")
    if block.language == "toml":
        path = shell.folder / (block.file or "checked.toml")
        path.write_text(block.text, encoding="utf-8")
        catalog.load(path)
    elif block.reason is None and block.language == "console":
        shell.run(block)
    elif block.reason is None and block.language == "python":
        shell.run_python(block)
