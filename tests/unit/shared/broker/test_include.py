"""A script stands after all that it includes, and what cannot be included says so."""

import re

import pytest

from headgate.shared.broker import figures
from headgate.shared.broker.include import FOLDER, IncludeError, composed, read_file, script_text

FILES = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.lua")
)
SCRIPTS = [name for name in FILES if not name.startswith("lib/")]


def text_of(files: dict[str, str], name: str = "a") -> str:
    return composed(name, files.get)


def test_a_file_stands_after_all_that_it_includes_and_each_stands_once() -> None:
    files = {
        "a": "-- @include lib/b\n-- @include lib/c\nA\n",
        "lib/b": "-- @include lib/d\nB\n",
        "lib/c": "-- @include lib/d\n-- @include lib/b\nC\n",
        "lib/d": "D\n",
    }
    assert re.findall(r"^[A-D]$", text_of(files), re.M) == ["D", "B", "C", "A"]


def test_comments_stay() -> None:
    assert text_of({"a": "-- why\nreturn 1\n"}) == "-- why\nreturn 1\n"


def test_a_missing_include_is_named_with_the_way_to_it() -> None:
    files = {"a": "-- @include lib/b\n", "lib/b": "-- @include lib/c\n"}
    with pytest.raises(IncludeError, match=r"a -> lib/b -> lib/c: there is no file lib/c\.lua"):
        text_of(files)


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        ({"a": "-- @include a\n"}, "a -> a: "),
        ({"a": "-- @include b\n", "b": "-- @include a\n"}, "a -> b -> a: "),
        (
            {"a": "-- @include b\n", "b": "-- @include c\n", "c": "-- @include b\n"},
            "a -> b -> c -> b: ",
        ),
    ],
)
def test_a_circle_is_named(files: dict[str, str], circle: str) -> None:
    with pytest.raises(IncludeError, match=f"^{circle}.*circle"):
        text_of(files)


@pytest.mark.parametrize(
    "line", ["--@include b", "-- @include", "  -- @include b", "-- @include b c"]
)
def test_an_include_that_would_be_overlooked_is_a_fault(line: str) -> None:
    with pytest.raises(IncludeError, match="must be a line"):
        text_of({"a": f"{line}\n", "b": ""})


def test_only_the_keys_and_the_figures_that_are_used_are_written() -> None:
    head = "-- @include generated/keys\n-- @include generated/figures\n"
    text = text_of({"a": f"{head}return {{KEY.leases, KEY.bucket('a', 'b'), FIGURES.RATE}}\n"})
    assert text.startswith(
        "local FIGURES = {\n  RATE = 0.998,\n}\n"
        "local prefix = ARGV[1]\n"
        "local KEY = {\n"
        "  bucket = function(scope, key) return prefix .. 'headgate:bucket:' .. scope .. '#' .. key"
        " end,\n"
        "  leases = prefix .. 'headgate:leases',\n"
        "}\n"
    )


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("-- @include generated/keys\nreturn KEY.leasez", "KEY.leasez: Keys has no such method"),
        (
            "-- @include generated/figures\nreturn FIGURES.RAT",
            "FIGURES.RAT: figures.py has no such",
        ),
    ],
)
def test_a_name_that_python_does_not_know_is_a_fault(line: str, fault: str) -> None:
    with pytest.raises(IncludeError, match=fault):
        text_of({"a": line})


@pytest.mark.parametrize("name", FILES)
def test_each_file_includes_the_tables_that_it_uses(name: str) -> None:
    text = composed(name, read_file)
    for table in ("KEY", "FIGURES"):
        is_used = re.search(rf"\b{table}\.", read_file(name) or "") is not None
        assert not is_used or f"local {table} = {{" in text


@pytest.mark.parametrize("name", FILES)
def test_no_file_writes_the_name_of_a_key(name: str) -> None:
    text = read_file(name) or ""
    assert [line for line in text.splitlines() if "headgate:" in line] == []
    assert "celery-task-meta" not in text


def test_every_library_is_included_somewhere() -> None:
    included = {
        found
        for name in FILES
        for found in re.findall(r"^-- @include (\S+)$", read_file(name) or "", re.M)
    }
    assert {name for name in FILES if name.startswith("lib/")} - included == set()


def test_every_figure_is_used_by_a_script() -> None:
    used = {
        name for script in SCRIPTS for name in re.findall(r"FIGURES\.(\w+)", script_text(script))
    }
    assert used == figures.ALL.keys()
