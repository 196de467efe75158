"""What the docs refer to exists."""

from __future__ import annotations

import re

import pytest

from tests import ROOT
from tests.docs.blocks import all_pages
from tests.docs.prose import anchors_of, links_of, paths_of

FOLDERS = ("producer", "workers", "shared", "migrations", "headgate", "deploy", "tests", "docs")
PAGES = [page.relative_to(ROOT).as_posix() for page in all_pages()]
PROMISES = ROOT / "docs" / "reliability.md"


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_a_file_and_a_heading(name: str) -> None:
    page = ROOT / name
    broken = []
    for number, target in links_of(page):
        if re.match(r"[a-z]+:", target):
            continue  # on the web, where no test goes
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            broken.append(f"{name}:{number}: {target}")
    assert broken == []


@pytest.mark.parametrize("name", [*PAGES, "CONTRIBUTING.md"])
def test_every_path_of_the_repository_that_is_named_exists(name: str) -> None:
    named = paths_of(ROOT / name, FOLDERS)
    assert [f"{name}:{n}: {path}" for n, path in named if not (ROOT / path).exists()] == []


def test_every_page_is_reached_from_the_readme() -> None:
    linked = {target.partition("#")[0] for _, target in links_of(ROOT / "README.md")}
    assert [name for name in PAGES if name not in linked] == ["README.md"]


def test_every_promise_names_a_test_that_exists() -> None:
    promised = re.findall(
        r"`((?:promises|integration)/[\w/]+\.py)::(test_\w+)`", PROMISES.read_text()
    )
    assert len(promised) > 50
    for file, name in promised:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), name


def test_every_promise_has_a_test() -> None:
    lines = PROMISES.read_text(encoding="utf-8").split("## Known limits")[0].splitlines()
    items = [n for n, line in enumerate(lines) if line.startswith("* ")]
    named = ("  `promises/", "  `integration/")
    assert [lines[n] for n in items if not lines[n + 1].startswith(named)] == []
