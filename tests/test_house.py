"""The rules of the house hold in this tree, and each of them can fail."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT, house

LINT_IMPORTS = "from importlinter.cli import lint_imports_command as run; run()"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS: list[dict[str, Any]] = PROJECT["tool"]["importlinter"]["contracts"]

Rule = Callable[[Path], list[str]]

LONG_FUNCTION = "def f():\n" + " x = 1\n" * 40
HEAD = "-- Takes one message from a queue.\n-- KEYS 1 queue\n-- ARGV none\n-- Result: the message\n"

# rule, path of a file that breaks it, that file, words of the breach
BREACHES: list[tuple[Rule, str, str, str]] = [
    (house.long_files, "workers/tasks.py", "x = 1\n" * 401, "longer than 400"),
    (house.long_functions, "workers/tasks.py", LONG_FUNCTION, ":1: f has 41 lines"),
    (house.long_functions, "deploy/a.py", f"async {LONG_FUNCTION}", ":1: f has 41 lines"),
    (house.crowded_folders, "shared/job/a26.py", "", "26 Python files"),
    (house.repeated_class_names, "shared/job.py", "class Client: ...\n", "producer/client.py:1"),
    (house.repeated_class_names, "workers/a.py", "def f():\n class Client: ...\n", ":2: the class"),
    (house.environment_readers, "producer/client.py", "import os\nos.environ['A']\n", ":2: reads"),
    (house.environment_readers, "workers/app.py", "from os import getenv\n", ":1: reads"),
    (house.environment_readers, "deploy/a.py", "import os\nos.getenv('A')\n", ":2: reads"),
    (house.celery_importers, "producer/submit.py", "import celery.app\n", "celery.app"),
    (house.celery_importers, "workers/stages/call.py", "def f():\n from kombu import x\n", ":2:"),
    (house.celery_importers, "shared/brokers.py", "import kombu\n", "imports kombu"),
    (house.banned_names, "shared/utils.py", "", "the name utils"),
    (house.banned_names, "shared/job_data/__init__.py", "", "the name job_data"),
    (house.banned_names, "workers/pool.py", "class HTTPManager: ...\n", "the name HTTPManager"),
    (house.banned_names, "workers/pool.py", "class KeptAnswer: ...\n", "the name KeptAnswer"),
    (house.unfinished, "shared/broker/lua/a.lua", "-- TO" + "DO later\n", "marked"),
    (house.unfinished, "docs/notes.md", "FIX" + "ME\n", "marked"),
    (house.registry_hosts, "requirements.txt", "# from https://py" + "pi.org/simple\n", "names"),
    (house.registry_hosts, "Dockerfile", "RUN pip install --index" + "-url x\n", "names"),
    (house.machine_paths, "deploy/a.yml", "path: /ho" + "me/me/x\n", "names"),
    (house.machine_paths, "a.py", "X = '/wo" + "rk/main'\n", "names"),
    (house.references, "README.md", "see `tests/promises/test_no.py::test_x`\n", "not exist"),
    (house.references, "README.md", "`promises/test_a.py::test_was`\n", "has no test_was"),
    (house.references, "README.md", "\nread [this](docs/no.md#part)\n", ":2: docs/no.md does"),
    (house.references, "docs/b.md", "start `headgate.workers.fetcher`\n", "headgate.workers.fetch"),
    (house.references, "shared/a.py", '"""By the rules of shared/policy."""\n', "shared/policy"),
    (house.references, "shared/a.py", "x = 1  # see admission" + ".md, B\n", "does not exist"),
    (house.references, "shared/a.py", "X = 1\n'''`kinds.py` has more.'''\n", ":2: kinds.py"),
    (house.references, "shared/a.py", "# test_that_is_gone shows it\n", "test_that_is_gone"),
    (house.references, "shared/a.py", '"""Carry the\n   contract\'s error."""\n', "repository"),
    (house.references, "shared/broker/lua/a.lua", f"{HEAD}-- as in lib/x.lua\n", ":5: lib/x.lua"),
    (house.references, "Makefile", "a:\n\t@true # see docs/no.md\n", ":2: docs/no.md"),
    (house.lua_heads, "shared/broker/lua/a.lua", "return 1\n", "purpose"),
    (house.lua_heads, "shared/broker/lua/b.lua", "-- Takes what is there.\n-- KEYS[1]\n", "ARGV"),
    (
        house.lua_key_literals,
        "shared/broker/lua/lib/b.lua",
        "x = p .. 'headgate:a'\n",
        ":1: spells",
    ),
    (house.lua_key_literals, "shared/broker/lua/b.lua", '\nx = "{a}headgate:a"\n', ":2: spells"),
]

FAIR = {
    "producer/client.py": "class Client: ...\nclass InfoBase: ...\nclass Enabled: ...\n",
    "producer/long.py": LONG_FUNCTION[:-7],
    "shared/settings.py": "import os\nos.environ\n",
    "workers/app.py": '"""See `producer/client.py`, docs/a.md, test_it."""\nimport celery\n',
    "workers/delivery/queue.py": "import kombu  # after headgate.producer.client.Client\n",
    "shared/broker/lua/a.lua": f"-- @include lib/b\n{HEAD}-- headgate:queue\nreturn 1\n",
    "README.md": "see `tests/promises/test_a.py::test_it`, https://x.example/home/page, ~/work/x\n"
    "and [a](docs/a.md#first), your own `views.py`, `site/urls.py`\n\n```\ncat docs/none.md\n```\n",
    "docs/a.md": "[up](../README.md), `promises/test_a.py::test_it`, headgate/producer/client.py\n",
    "tests/promises/test_a.py": "async def test_it() -> None: ...\n",
    "tests/twice.py": "class Client: ...\n",
    **{f"shared/job/a{n}.py": "" for n in range(1, 26)},
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
    place = name.rpartition("/")[0] if rule is house.crowded_folders else name
    assert any(place in breach and words in breach for breach in breaches), breaches


def test_each_rule_is_shown_to_fail() -> None:
    assert {rule for rule, *_ in BREACHES} == set(house.RULES)


def test_a_document_cannot_name_a_test_that_was_renamed(tmp_path: Path) -> None:
    make_tree(tmp_path, FAIR | {"tests/promises/test_a.py": "def test_its_name() -> None: ...\n"})
    assert house.references(tmp_path) == [
        "README.md:1: tests/promises/test_a.py has no test_it",
        "docs/a.md:1: promises/test_a.py has no test_it",
        "workers/app.py:1: test_it does not exist",
    ]


def test_the_exceptions_are_still_needed() -> None:
    for name in house.LONG_FOR_A_REASON:
        assert len((ROOT / name).read_text().splitlines()) > house.MAX_LINES, name
    for entry in [*house.LONG_FUNCTIONS_FOR_A_REASON, *house.NAMED_SO_FOR_A_REASON]:
        path, _, name = entry.partition(":")
        assert name in (ROOT / path).read_text(), entry
    for name in [*house.MACHINE_PATHS_FOR_A_REASON, *house.CROWDED_FOR_A_REASON]:
        assert (ROOT / name).exists(), name


BRANCHES = "def f(x: int) -> int:\n" + "".join(
    f"    if x == {n}:\n        x += 1\n" for n in range(13)
)

# code of ruff, path of a file that breaks it, that file
LINTED = [
    ("C901", "workers/a.py", f"{BRANCHES}    return x\n"),
    ("PLR0912", "tests/a.py", f"{BRANCHES}    return x\n"),
    ("TID251", "shared/a.py", "import shared.errors\n\nX = shared\n"),
    ("TID251", "tests/a.py", "from producer.client import Client\n\nX = Client\n"),
    ("TID251", "headgate/a.py", "def f() -> None:\n    import workers\n\n    workers.f()\n"),
    ("D401", "producer/a.py", 'def f() -> None:\n    """The wait in ms."""\n'),
]
MODEST = 'def f(x: int) -> int:\n    """Return the wait in ms."""\n    return x\n'


def lint(root: Path) -> str:
    argv = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise"]
    ended = subprocess.run(
        [*argv, "--config", "pyproject.toml", "."],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr == ""
    return ended.stdout


def test_ruff_checks_complexity_mood_and_the_one_package(tmp_path: Path) -> None:
    project = {"pyproject.toml": (ROOT / "pyproject.toml").read_text()}
    for number, (_, name, text) in enumerate(LINTED):
        make_tree(tmp_path / str(number), project | {name: text})
    make_tree(tmp_path / "fair", project | {"producer/a.py": MODEST, "tests/a.py": LINTED[-1][2]})
    for number, (code, name, _) in enumerate(LINTED):
        assert re.search(rf"^{name}:.* {code} ", lint(tmp_path / str(number)), re.M), (code, name)
    assert "All checks passed" in lint(tmp_path / "fair")


def lint_imports(root: Path) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-c", LINT_IMPORTS, "--no-cache", "pyproject.toml"]
    env = {"PYTHONPATH": str(root), "PATH": ""}
    return subprocess.run(argv, cwd=root, env=env, capture_output=True, text=True, check=False)


def test_imports_go_in_the_directions_of_the_house() -> None:
    outcome = lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


IMPORTED = {
    "workers/providers/anthropic": "anthropic",
    "workers/providers/openai": "openai",
    "workers/stages/cache": "headgate.workers.stages.cache_entry",
    "shared/job/result": "headgate.shared.job.request",
}


def made_package() -> dict[str, str]:
    """Return the product's modules, all of them empty but for what IMPORTED says."""
    names = [name for name, _ in house.sources(ROOT, "producer", "workers", "shared")]
    tree = {f"headgate/{name}": "" for name in ["__init__.py", *names]}
    tree |= {f"headgate/{name}.py": f"import {what}\n" for name, what in IMPORTED.items()}
    project = (ROOT / "pyproject.toml").read_text()
    return tree | {"pyproject.toml": project[project.index("[tool.importlinter]") :]}


SIDES, PRODUCER, SHARED, WORKERS, STAGES, PROVIDERS, VENDORS, PURE, SIMULATOR, CIRCLES = (
    contract["name"] for contract in CONTRACTS
)

# contract, module that breaks it, what it imports
CLIMBING: list[tuple[str, str, str]] = [
    (SIDES, "producer/client/client", "headgate.workers.pipeline.pipeline"),
    (SIDES, "workers/pipeline/pipeline", "headgate.producer.client.client"),
    (SIDES, "shared/broker/queues", "headgate.workers.app"),
    (PRODUCER, "producer/installation", "headgate.producer.submit.prepare"),
    (PRODUCER, "producer/client/client", "headgate.producer.cli.commands"),
    (PRODUCER, "producer/parcel/send", "headgate.producer.errors"),
    (SHARED, "shared/job/request", "headgate.shared.catalog.catalog"),
    (SHARED, "shared/catalog/catalog", "headgate.shared.cost.price"),
    (SHARED, "shared/cost/price", "headgate.shared.routing.router"),
    (SHARED, "shared/broker/queues", "headgate.shared.database.engine"),
    (SHARED, "shared/routing/router", "headgate.shared.admission.limits"),
    (SHARED, "shared/database/engine", "headgate.shared.servers.servers"),
    (SHARED, "shared/parcel", "headgate.shared.errors"),
    (WORKERS, "workers/tasks", "headgate.workers.app"),
    (WORKERS, "workers/bootstrap", "headgate.workers.tasks"),
    (WORKERS, "workers/pipeline/pipeline", "headgate.workers.bootstrap"),
    (WORKERS, "workers/celery/consumer", "headgate.workers.app"),
    (WORKERS, "workers/stages/claim", "headgate.workers.pipeline.outcome"),
    (WORKERS, "workers/maintenance/recover", "headgate.workers.stages.claim"),
    (WORKERS, "workers/policy/retry", "headgate.workers.stages.claim"),
    (WORKERS, "workers/clients/clock", "headgate.workers.policy.retry"),
    (WORKERS, "workers/parcel/send", "headgate.workers.errors"),
    (STAGES, "workers/stages/claim", "headgate.workers.stages.cache"),
    (STAGES, "workers/stages/cache_entry", "headgate.workers.stages.call"),
    (PROVIDERS, "workers/pipeline/pipeline", "headgate.workers.providers.openai"),
    (VENDORS, "workers/stages/call", "openai"),
    (VENDORS, "workers/pipeline/pipeline", "anthropic.types"),
    *[
        (PURE, "shared/job/envelope", vendor)
        for vendor in ("aiohttp", "anthropic", "celery", "kombu", "openai", "redis", "sqlalchemy")
    ],
    (PURE, "shared/routing/router", "redis.asyncio"),
    (PURE, "workers/policy/retry", "headgate.workers.clients.clock"),
    (PURE, "workers/pipeline/outcome", "headgate.shared.database.engine"),
    (SIMULATOR, "workers/simulator/engine", "headgate.workers.providers.openai"),
    (CIRCLES, "shared/job/request", "headgate.shared.job.result"),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("package")
    make_tree(root, made_package())
    fair = lint_imports(root)
    assert fair.returncode == 0, fair.stdout + fair.stderr
    return root


@pytest.mark.parametrize(("contract", "module", "imported"), CLIMBING)
def test_each_contract_can_fail(package: Path, contract: str, module: str, imported: str) -> None:
    file = package / "headgate" / f"{module}.py"
    before = file.read_text() if file.exists() else None
    folder = None if file.parent.exists() else file.parent
    if folder:
        make_tree(folder, {"__init__.py": ""})
    file.write_text(f"{before or ''}def late():\n    import {imported}\n")
    broken = lint_imports(package)
    if before is None:
        file.unlink()
    else:
        file.write_text(before)
    if folder:
        shutil.rmtree(folder)
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert f"{contract} BROKEN" in re.sub(r"\s+", " ", broken.stdout)


def test_each_contract_is_shown_to_fail() -> None:
    assert {contract for contract, *_ in CLIMBING} == {contract["name"] for contract in CONTRACTS}


@pytest.mark.parametrize(
    "module", ["shared/cache/ttl", "workers/provider", "workers/stages/cache_entry", "shared/stats"]
)
def test_a_module_that_a_contract_names_cannot_be_renamed_unnoticed(
    tmp_path: Path, module: str
) -> None:
    tree = {
        name: text
        for name, text in made_package().items()
        if not name.startswith((f"headgate/{module}.py", f"headgate/{module}/"))
    }
    make_tree(tmp_path, tree)
    assert lint_imports(tmp_path).returncode == 1
