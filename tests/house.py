"""The rules of the house that a machine can check, as functions from a tree to a list of breaches.

Each takes the root of a tree, so that `test_house.py` can show on a made-up tree that it fails when
it should. A breach reads `path:line: what is wrong`. Parts of the tree that do not exist are fine.
"""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

PRODUCT = ("producer", "workers", "shared")
MAX_LINES = 300

LONG_FOR_A_REASON: dict[str, str] = {
    "shared/job/envelope.py": "all that crosses a process, in one place",
}
"""Files that may exceed MAX_LINES, each with its reason."""

ENVIRONMENT_READERS = ("shared/settings.py",)

CELERY_FILES = (
    "shared/broker/queues.py",
    "workers/app.py",
    "workers/celery/consumer.py",
    "workers/celery/control.py",
    "workers/flower.py",
    "workers/celery/pool.py",
    "workers/celery/shutdown.py",
    "workers/tasks.py",
    "workers/celery/transport.py",
)

KINDS = ["manager", "handler", "service", "processor", "helper", "helpers", "util", "utils"]
BANNED_NOUNS = frozenset([*KINDS, "context", "data", "info"])

NAMED_SO_FOR_A_REASON: dict[str, str] = {}
"""Names with a banned noun, as `path:name`, each with its reason (a base class demands it, say)."""

# Written with character classes, so that this file does not break its own rules.
UNFINISHED = re.compile(r"\b(?:T[O]DO|F[I]XME|X[X]X)\b")
REGISTRY = re.compile(
    r"(?:[\w-]+[.])*(?:py[p]i|pythonhosted|npm[j]s|crates|rubygems|jfrog|pkg[.]dev)[.](?:org|io|com|python[.]org)"
    r"|--(?:extra-)?index-ur[l]|PIP_[A-Z_]*INDEX"
)
MACHINE_PATH = re.compile(r"(?<![\w.~$})/])/(?:work|root|home|Users)/[\w.-]+")

MACHINE_PATHS_FOR_A_REASON: dict[str, str] = {}
"""Files that may name an absolute home path, each with its reason."""

README_TEST = re.compile(r"(tests/[\w/]+[.]py)(?:::(\w+))?")


def sources(root: Path, *folders: str) -> Iterator[tuple[str, Path]]:
    """All Python files of the named folders, as (path from the root, path)."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root).as_posix(), path


def tracked(root: Path) -> list[str]:
    """The files git would commit, or, where there is no git, all that are not hidden."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (root / ".git").exists():
        listing = subprocess.run(argv, cwd=root, capture_output=True, check=True)
        names = listing.stdout.decode().split("\0")
        return sorted(name for name in names if name and (root / name).is_file())
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(f.as_posix() for f in files if not any(part.startswith(".") for part in f.parts))


def long_files(root: Path) -> list[str]:
    """No file of the product is longer than MAX_LINES, but those with a reason."""
    breaches = []
    for name, path in sources(root, *PRODUCT):
        lines = len(path.read_text().splitlines())
        if lines > MAX_LINES and name not in LONG_FOR_A_REASON:
            breaches.append(f"{name}:{lines}: longer than {MAX_LINES} lines")
    return breaches


def environment_readers(root: Path) -> list[str]:
    """Only the settings read the environment."""
    breaches = []
    for name, path in sources(root, *PRODUCT, "migrations", "deploy"):
        if name in ENVIRONMENT_READERS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(attr="environ" | "environb" | "getenv" | "putenv", lineno=line):
                    breaches.append(f"{name}:{line}: reads the environment")
                case ast.ImportFrom(module="os", names=names, lineno=line):
                    if {alias.name for alias in names} & {"environ", "environb", "getenv"}:
                        breaches.append(f"{name}:{line}: reads the environment")
                case _:
                    pass
    return breaches


def celery_importers(root: Path) -> list[str]:
    """Celery and kombu are imported where messages are sent and taken, and nowhere else."""
    breaches = []
    for name, path in sources(root, *PRODUCT):
        if name in CELERY_FILES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            imported = []
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported = [node.module or ""]
            for module in imported:
                if module.split(".")[0] in {"celery", "kombu", "billiard"}:
                    line = getattr(node, "lineno", 0)
                    breaches.append(f"{name}:{line}: imports {module}")
    return breaches


def head_noun(name: str) -> str:
    """The last word of a snake_case or CamelCase name, in lower case: what the thing is."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    return words[-1].lower() if words else ""


def banned_names(root: Path) -> list[str]:
    """No module, package or class is named after its kind instead of after the thing."""
    breaches = []
    for name, path in sources(root, *PRODUCT):
        module = path.parent.name if path.stem == "__init__" else path.stem
        found = [(1, module)]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found.append((node.lineno, node.name))
        for line, word in found:
            if head_noun(word) in BANNED_NOUNS and f"{name}:{word}" not in NAMED_SO_FOR_A_REASON:
                breaches.append(f"{name}:{line}: the name {word}")
    return breaches


def _lines_with(root: Path, pattern: re.Pattern[str], what: str) -> list[str]:
    breaches = []
    for name in tracked(root):
        try:
            text = (root / name).read_text()
        except UnicodeDecodeError:
            continue  # a picture or the like
        for number, line in enumerate(text.splitlines(), 1):
            found = pattern.search(line)
            if found:
                breaches.append(f"{name}:{number}: {what} {found.group(0)}")
    return breaches


def unfinished(root: Path) -> list[str]:
    """Nothing is marked as to be done later."""
    return _lines_with(root, UNFINISHED, "marked")


def registry_hosts(root: Path) -> list[str]:
    """No file names a package registry: where packages come from is the user's setting."""
    return _lines_with(root, REGISTRY, "names")


def machine_paths(root: Path) -> list[str]:
    """No file names a folder of somebody's machine."""
    found = _lines_with(root, MACHINE_PATH, "names")
    return [b for b in found if b.split(":")[0] not in MACHINE_PATHS_FOR_A_REASON]


def readme_promises(root: Path) -> list[str]:
    """Every test that the README names exists."""
    breaches = []
    readme = root / "README.md"
    text = readme.read_text() if readme.exists() else ""
    for file, test in README_TEST.findall(text):
        path = root / file
        if not path.is_file():
            breaches.append(f"README.md:0: {file} does not exist")
        elif test and not re.search(rf"^\s*(?:async )?def {test}\b", path.read_text(), re.M):
            breaches.append(f"README.md:0: {file} has no {test}")
    return breaches


def lua_heads(root: Path) -> list[str]:
    """Every Lua script opens with comments: its purpose, KEYS, ARGV and its result."""
    breaches = []
    for path in sorted((root / "shared" / "broker" / "lua").rglob("*.lua")):
        head = []
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith("--"):
                break
            head.append(line.removeprefix("--").strip())
        name = path.relative_to(root).as_posix()
        purpose = next((line for line in head if line), "")
        if len(purpose) < 20 or purpose.upper().startswith(("KEYS", "ARGV", "RESULT", "RETURNS")):
            breaches.append(f"{name}:1: does not open with its purpose")
        joined = "\n".join(head)
        for part, word in (
            ("KEYS", "KEYS"),
            ("ARGV", "ARGV"),
            ("result", "(?i:results?|returns?)"),
        ):
            if not re.search(rf"\b{word}\b", joined):
                breaches.append(f"{name}:1: its head does not tell {part}")
    return breaches


RULES = (
    long_files,
    environment_readers,
    celery_importers,
    banned_names,
    unfinished,
    registry_hosts,
    machine_paths,
    readme_promises,
    lua_heads,
)
