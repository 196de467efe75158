"""The sentences, headings and links of a page of Markdown, as far as our own pages need it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.docs.blocks import prose_of

MOST_WORDS = 25

LINK = re.compile(r"!?\[([^\]]*)\]\(([^)\s]+)\)")
CODE = re.compile(r"`+[^`]+`+")
_ITEM = re.compile(r"^\s*(?:[*+-]|\d+\.)\s+")
_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[A-Z\[\"'(])")


def sentences_of(page: Path) -> Iterator[tuple[int, str]]:
    """Yield each sentence outside of tables, headings and code, with its paragraph's line."""
    for number, paragraph in _paragraphs(page):
        text = CODE.sub("Code", LINK.sub(r"\1", paragraph)).replace("**", "")
        for sentence in _END.split(text):
            yield number, sentence


def words_of(sentence: str) -> int:
    """Return the number of words; signs that stand alone are none."""
    return sum(1 for word in sentence.split() if re.search(r"\w", word))


def _paragraphs(page: Path) -> Iterator[tuple[int, str]]:
    start = 0
    lines: list[str] = []
    for number, line in [*prose_of(page), (0, "")]:
        apart = not line.strip() or line.lstrip().startswith(("#", "|", "<!--", "!["))
        if (apart or _ITEM.match(line)) and lines:
            yield start, " ".join(lines)
            lines = []
        if not apart:
            if not lines:
                start = number
            lines.append(_ITEM.sub("", line).strip())


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that a forge makes of the headings of a page."""
    heads = [line for _, line in prose_of(page) if line.startswith("#")]
    return {_slug(line.lstrip("#").strip()) for line in heads}


def _slug(heading: str) -> str:
    plain = re.sub(r"[^\w\- ]", "", LINK.sub(r"\1", heading).replace("`", ""))
    return plain.lower().replace(" ", "-")


def links_of(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the target of each link, with the line of its end; its text may be broken."""
    before = ""
    for number, line in prose_of(page):
        for found in LINK.finditer(f"{before} {line}"):
            if found.end() > len(before) + 1:
                yield number, found.group(2)
        before = line


def paths_of(page: Path, folders: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield each path in code spans that begins with one of the folders, with its line."""
    pattern = re.compile(rf"`((?:{'|'.join(folders)})/[\w/.@-]*)`")
    for number, line in prose_of(page):
        for found in pattern.finditer(line):
            yield number, found.group(1)
