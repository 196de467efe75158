"""The rules of the house hold in this tree, and each of them can fail."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT, house

LINT_IMPORTS = "from importlinter.cli import lint_imports_command as run; run()"
VENDORS = ("anthropic", "celery", "kombu", "openai", "redis", "sqlalchemy")

Rule = Callable[[Path], list[str]]

# rule, path of a file that breaks it, that file, words of the breach
BREACHES: list[tuple[Rule, str, str, str]] = [
    (house.long_files, "workers/pipeline.py", "x = 1\n" * 301, "longer than 300"),
    (house.environment_readers, "producer/client.py", "import os\nos.environ['A']\n", ":2: reads"),
    (house.environment_readers, "workers/app.py", "from os import getenv\n", ":1: reads"),
    (house.celery_importers, "producer/submit.py", "import celery.app\n", "celery.app"),
    (house.celery_importers, "workers/stages/call.py", "def f():\n from kombu import x\n", ":2:"),
    (house.banned_names, "shared/utils.py", "", "the name utils"),
    (house.banned_names, "shared/job_data/__init__.py", "", "the name job_data"),
    (house.banned_names, "workers/pool.py", "class HTTPManager: ...\n", "the name HTTPManager"),
    (house.unfinished, "shared/lua/a.lua", "-- TO" + "DO later\n", "marked"),
    (house.unfinished, "docs/notes.md", "FIX" + "ME\n", "marked"),
    (house.registry_hosts, "requirements.txt", "# from https://py" + "pi.org/simple\n", "names"),
    (house.registry_hosts, "Dockerfile", "RUN pip install --index" + "-url x\n", "names"),
    (house.machine_paths, "deploy/a.yml", "path: /ho" + "me/me/x\n", "names"),
    (house.machine_paths, "a.py", "X = '/wo" + "rk/main'\n", "names"),
    (house.readme_promises, "README.md", "see `tests/system/test_no.py::test_x`\n", "not exist"),
    (house.lua_heads, "shared/lua/a.lua", "return 1\n", "purpose"),
    (house.lua_heads, "shared/lua/b.lua", "-- Takes what is there.\n-- KEYS[1]\nreturn", "ARGV"),
]

FAIR = {
    "producer/client.py": "class Client: ...\nclass InfoBase: ...\n",
    "shared/settings.py": "import os\nos.environ\n",
    "workers/app.py": "import celery\n",
    "shared/lua/a.lua": "-- Takes one message from a queue.\n-- KEYS 1 queue\n-- ARGV none\n"
    "-- Result: the message\nreturn 1\n",
    "README.md": "see `tests/system/test_a.py::test_it`, https://x.example/home/page, ~/work/x\n",
    "tests/system/test_a.py": "async def test_it() -> None: ...\n",
}


def make_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: str(rule.__name__))
def test_the_tree_keeps_the_rules(rule: Rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize("rule", house.RULES, ids=lambda rule: str(rule.__name__))
def test_each_rule_lets_a_fair_and_an_empty_tree_pass(rule: Rule, tmp_path: Path) -> None:
    assert rule(tmp_path) == []
    make_tree(tmp_path, FAIR)
    assert rule(tmp_path) == []


@pytest.mark.parametrize(("rule", "name", "text", "words"), BREACHES)
def test_each_rule_can_fail(tmp_path: Path, rule: Rule, name: str, text: str, words: str) -> None:
    make_tree(tmp_path, FAIR | {name: text})
    breaches = rule(tmp_path)
    assert any(name in breach and words in breach for breach in breaches), breaches


def test_each_rule_is_shown_to_fail() -> None:
    assert {rule for rule, *_ in BREACHES} == set(house.RULES)


def test_a_readme_cannot_name_a_test_that_was_renamed(tmp_path: Path) -> None:
    make_tree(tmp_path, FAIR | {"tests/system/test_a.py": "def test_its_name() -> None: ...\n"})
    assert house.readme_promises(tmp_path) == ["README.md:0: tests/system/test_a.py has no test_it"]


def lint_imports(root: Path) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-c", LINT_IMPORTS, "--no-cache", "--config", "pyproject.toml"]
    env = {"PYTHONPATH": str(root), "PATH": ""}
    return subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, check=False)


def test_imports_go_in_the_directions_of_the_house() -> None:
    outcome = lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("producer/client.py", "import headgate.workers.pipeline"),
        ("workers/pipeline.py", "import headgate.producer.client"),
        ("shared/queues.py", "import headgate.workers.app"),
        ("workers/outcome.py", "import headgate.workers.policy.retry"),
        ("workers/policy/retry.py", "import headgate.workers.stages.claim"),
        ("workers/stages/claim.py", "import headgate.workers.stages.cache"),
        ("workers/stages/claim.py", "import headgate.workers.sweep"),
        ("workers/sweep.py", "import headgate.workers.bootstrap"),
        ("workers/bootstrap.py", "import headgate.workers.tasks"),
        ("workers/pipeline.py", "import headgate.workers.providers.openai"),
        *[("shared/envelope.py", f"import {vendor}") for vendor in VENDORS],
        ("shared/catalog.py", "import headgate.shared.connections"),
        ("shared/policy/route.py", "import redis.asyncio"),
        ("workers/policy/retry.py", "def late():\n    import openai\n"),
        ("workers/outcome.py", "import sqlalchemy.orm"),
    ],
)
def test_the_import_rules_can_fail(tmp_path: Path, name: str, text: str) -> None:
    modules = """
        producer/client shared/queues shared/envelope shared/catalog shared/policy/route
        workers/app workers/tasks workers/bootstrap workers/pipeline workers/sweep workers/outcome
        workers/stages/claim workers/stages/cache workers/policy/retry workers/providers/openai
    """
    tree = {f"{module}.py": "" for module in modules.split()}
    packages = {f"{Path(file).parent}/__init__.py": "" for file in tree}
    tree |= packages | {"workers/__init__.py": "", "shared/__init__.py": ""}
    tree["shared/connections.py"] = "import redis\n"
    tree["workers/bootstrap.py"] = "import headgate.workers.pipeline, workers.providers.openai\n"
    tree["workers/pipeline.py"] = "import headgate.workers.stages.claim, shared.queues\n"
    rules = (ROOT / "pyproject.toml").read_text()
    make_tree(tmp_path, tree | {"pyproject.toml": rules[rules.index("[tool.importlinter]") :]})
    fair = lint_imports(tmp_path)
    assert fair.returncode == 0, fair.stdout + fair.stderr
    make_tree(tmp_path, {name: text + "\n"})
    broken = lint_imports(tmp_path)
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "BROKEN" in broken.stdout


def test_the_exceptions_are_still_needed() -> None:
    for name in house.LONG_FOR_A_REASON:
        assert len((ROOT / name).read_text().splitlines()) > house.MAX_LINES, name
    for entry in house.NAMED_SO_FOR_A_REASON:
        assert (ROOT / entry.split(":")[0]).is_file(), entry
    for name in house.MACHINE_PATHS_FOR_A_REASON:
        assert (ROOT / name).is_file(), name


def test_the_contract_of_the_pure_parts_names_every_server_and_vendor() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [contract] = [
        contract
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "forbidden"
    ]
    assert set(contract["forbidden_modules"]) == set(VENDORS)
