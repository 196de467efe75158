"""The generated pages are up to date and complete."""

from __future__ import annotations

import dataclasses
from typing import get_args

import click
import pytest

from headgate.shared.errors import ErrorCode
from headgate.shared.job.request import Request
from headgate.shared.job.result import Result
from headgate.shared.settings import Settings, variable
from tests import ROOT
from tests.docs.__main__ import FOLDER, stale
from tests.docs.reference import PAGES, commands, keys
from tests.docs.reference.fields import describe
from tests.docs.reference.notes import ERROR_CODES, RESULT_FIELDS

REQUEST_NAMES = list(Request.model_fields)
RESULT_NAMES = [one.name for one in dataclasses.fields(Result) if not one.name.startswith("_")]


def test_no_page_is_stale() -> None:
    assert list(stale()) == [], "run `python -m tests.docs`"


def test_no_page_is_left_over() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(PAGES)


@pytest.mark.parametrize("document", ["docs/reference/settings.md", ".env.example"])
def test_every_setting_is_in(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    missing = [variable(field) for field in Settings.model_fields if variable(field) not in text]
    assert missing == []


def test_every_command_and_option_is_in_the_reference() -> None:
    text = (FOLDER / "command-line.md").read_text(encoding="utf-8")
    missing = []
    for context in commands.walk():
        if f"# {context.command_path}\n" not in text:
            missing.append(context.command_path)
        for option in context.command.params:
            if isinstance(option, click.Option) and option.opts[0] not in text:
                missing.append(f"{context.command_path} {option.opts[0]}")
    assert missing == []


def test_every_key_has_a_docstring() -> None:
    assert [pattern for pattern, words in keys.patterns() if not words] == []


def test_every_error_code_is_explained() -> None:
    assert sorted(ERROR_CODES) == sorted(get_args(ErrorCode))


@pytest.mark.parametrize(
    ("owner", "names", "notes"),
    [(Request, REQUEST_NAMES, {}), (Result, RESULT_NAMES, RESULT_FIELDS)],
    ids=["request", "result"],
)
def test_every_field_is_explained_once(
    owner: type, names: list[str], notes: dict[str, str]
) -> None:
    described = [name for name in names if describe(owner, name)]
    assert sorted([*described, *notes]) == sorted(names)
