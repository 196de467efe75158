"""The forge, pre-commit and a developer run the same commands, and the forge's forms are valid."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests import ROOT

FORGE = ROOT / ".github"
WORKFLOW = FORGE / "workflows" / "checks.yml"
FORMS = FORGE / "ISSUE_TEMPLATE"

SCHEMAS = {
    "github-workflows": [WORKFLOW],
    "github-issue-config": [FORMS / "config.yml"],
    "github-issue-forms": [FORMS / "bug.yml", FORMS / "feature.yml"],
}


def load(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


def command_of(target: str) -> str:
    """Return what make would run for a target; it runs lines with `$(MAKE)` even in a dry run."""
    argv = ["make", "--dry-run", "--no-print-directory", target, "MAKE=echo", "python=echo"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    return ended.stdout


@pytest.mark.parametrize("schema", list(SCHEMAS))
def test_forms_and_workflows_keep_to_their_schemas(schema: str) -> None:
    argv = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    ended = subprocess.run([*argv, *SCHEMAS[schema]], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_form_is_checked() -> None:
    checked = {path for paths in SCHEMAS.values() for path in paths}
    assert checked == {*FORMS.glob("*.yml"), *(FORGE / "workflows").iterdir()}


def test_the_workflow_runs_what_everybody_runs() -> None:
    workflow = load(WORKFLOW)
    assert set(workflow["on"]) == {"push", "pull_request"}
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    script = (ROOT / ".ci" / "run").read_text()
    assert script.splitlines()[-1] == "exec env FETCH_BROWSER=1 make test"
    for step in steps:
        assert re.search(r"@v\d+$", step.get("uses", "@v1")), step
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())


def test_pre_commit_runs_what_make_check_runs() -> None:
    [repository] = load(ROOT / ".pre-commit-config.yaml")["repos"]
    [hook] = repository["hooks"]
    assert (repository["repo"], hook["language"], hook["entry"]) == (
        "local",
        "system",
        "make check",
    )


def test_check_is_the_part_of_test_that_needs_no_server() -> None:
    check, everything = command_of("check"), command_of("test")
    assert "tests/test_house.py tests/unit" in check
    assert "tests/unit" not in everything
    assert "echo --no-print-directory lint" in check
    assert "echo --no-print-directory lint" in everything
    lint = command_of("lint")
    for tool in ("ruff check .", "ruff format --check .", "mypy", "importlinter"):
        assert tool in lint


def test_the_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [targets] = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    named = set(re.findall(r"make (\w+)", command_of("help")))
    assert named == set(targets.split()) - {"help", "venv"}


def test_clean_removes_what_the_checks_leave_behind() -> None:
    clean = command_of("clean")
    ignored = (ROOT / ".gitignore").read_text().split()
    caches = {name.rstrip("/") for name in ignored if name.startswith(".") and name.endswith("/")}
    for cache in caches - {".venv", ".headgate"}:
        assert f" {cache}" in clean, cache
    for folder in {path.name for path in ROOT.iterdir() if any(path.glob("**/*.py"))}:
        if not folder.startswith(".") and folder not in ("dist", "build"):
            assert f" {folder} " in clean, folder
