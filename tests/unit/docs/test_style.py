"""The docs can be read: short lines, short sentences, blocks that say whether they run."""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest

import headgate
from tests import ROOT
from tests.docs.blocks import REASONS, RUN, SHOWN, Block, all_pages, blocks_of, pages
from tests.docs.prose import MOST_WORDS, sentences_of, words_of

PAGES = [page.relative_to(ROOT).as_posix() for page in all_pages()]
WRITTEN = [page.relative_to(ROOT).as_posix() for page in pages()]
BLOCKS = [block for page in all_pages() for block in blocks_of(page)]

MOST_CHARACTERS, MOST_IN_A_ROW, MOST_BYTES = 120, 160, 8_000
LEFT_OUT = {
    "docker": 2,
    "foreground": 4,
    "kubernetes": 1,
    "minutes": 1,
    "other-package": 2,
    "own-test": 5,
    "package-index": 1,
    "servers": 3,
    "systemd": 2,
}
"""How many blocks are not run, by reason: a new one is a decision, not an oversight."""


def test_the_readme_is_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= MOST_BYTES


@pytest.mark.parametrize("name", PAGES)
def test_no_line_is_too_long(name: str) -> None:
    def most(line: str) -> int:
        return MOST_IN_A_ROW if line.startswith("|") else MOST_CHARACTERS

    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    alone = re.compile(r"\s*`[^`]+`")  # a name that cannot be broken
    long = [n for n, line in enumerate(lines, 1) if len(line) > most(line)]
    assert [f"{name}:{n}" for n in long if not alone.fullmatch(lines[n - 1])] == []


@pytest.mark.parametrize("name", WRITTEN)
def test_no_sentence_is_too_long(name: str) -> None:
    long = [
        f"{name}:{number}: {words_of(sentence)} words: {sentence}"
        for number, sentence in sentences_of(ROOT / name)
        if words_of(sentence) > MOST_WORDS
    ]
    assert long == [], "\n".join(long)


def test_every_block_says_what_it_is() -> None:
    wrong = [b.place for b in BLOCKS if b.language not in (*RUN, *SHOWN) or b.unknown]
    assert wrong == []


def test_blocks_are_left_out_for_known_reasons_only() -> None:
    counted = Counter(block.reason for block in BLOCKS if block.reason is not None)
    assert set(counted) <= set(REASONS)
    assert counted == LEFT_OUT


PYTHON = [block for block in BLOCKS if block.language == "python"]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_python_blocks_are_python_and_import_what_headgate_has(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module == "headgate":
            assert {alias.name for alias in node.names} <= set(headgate.__all__)
