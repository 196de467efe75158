"""The table of Celery's features in docs/celery.md names a test for each, which exists."""

from __future__ import annotations

import re
from collections import Counter

from tests import ROOT

WORDS = ("works", "refused", "FAILURE", "PENDING")
_ROW = re.compile(r"^\| (?P<feature>.+?) \| (?P<here>.+?) \| `(?P<test>test_\w+)` \|$")


def rows() -> list[str]:
    """The lines of the table, without its head."""
    text = (ROOT / "docs" / "celery.md").read_text(encoding="utf-8")
    lines = text.split("## Features")[1].splitlines()
    return [line for line in lines if line.startswith("| ")][1:]


def names_of_tests() -> Counter[str]:
    """How often each name of a test stands in the tree."""
    found: Counter[str] = Counter()
    for file in (ROOT / "tests").rglob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        found.update(re.findall(r"^(?:async )?def (test_\w+)\(", text, re.MULTILINE))
    return found


def test_each_feature_says_how_it_stands_and_names_one_test_that_exists() -> None:
    known, wrong = names_of_tests(), []
    for line in rows():
        found = _ROW.match(line)
        if found is None or not found["here"].startswith(WORDS) or known[found["test"]] != 1:
            wrong.append(line)
    assert wrong == []


def test_the_table_has_what_celery_offers_to_a_caller() -> None:
    table = "\n".join(rows())
    offered = (
        "priority", "expires", "countdown", "eta", "time_limit", "retries", "reply_to",
        "ignore_result", "link", "link_error", "chain", "group", "chord", "revoke", "AsyncResult",
        "GroupResult", "ResultSet", "inspect", "control", "purge", "events", "pickle",
    )  # fmt: skip
    assert [name for name in offered if f"`{name}" not in table and f" {name}" not in table] == []
