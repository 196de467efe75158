"""The reader of blocks and the small shell, on made-up pages: they fail when they should."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import blocks
from tests.docs.blocks import blocks_of
from tests.docs.shell import commands_of, not_printed


def page_of(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[blocks.Block]:
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(text)
    return blocks_of(path)


def test_the_words_after_a_fence_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Hello\n\n```console no-run docker\n$ a\n```\n\n"
    text += "```toml file=x.toml exit=2 odd\nb = 1\n```\n"
    first, second = page_of(text, tmp_path, monkeypatch)
    assert (first.place, first.language, first.reason) == ("page.md:3", "console", "docker")
    assert (second.file, second.exit_code, second.unknown) == ("x.toml", 2, ["odd"])
    assert second.text == "b = 1\n"


def test_a_fence_that_is_not_closed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"page\.md:1: the fence is not closed"):
        page_of("```python\nx = 1\n", tmp_path, monkeypatch)


def test_commands_have_the_lines_below_them() -> None:
    text = "$ one \\\n  --more\nprinted\n$ two\n"
    assert list(commands_of(text)) == [("one --more", ["printed"]), ("two", [])]


def test_lines_must_be_printed_in_their_order() -> None:
    printed = "model  gpt-4o-mini\ncost  0.1\n"
    assert not_printed(["model ...", "cost ..."], printed) is None
    assert not_printed(["cost ...", "model ..."], printed) == "model ..."
