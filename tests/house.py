"""The rules of the house that no linter knows, as functions from a tree to a list of breaches.

Each takes the root of a tree, so that `test_house.py` can show on a made-up tree that it fails when
it should. A breach reads `path:line: what is wrong`. Parts of the tree that do not exist are fine.
"""

import ast
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.house_references import dead_references

PRODUCT = ("headgate", "producer", "workers", "shared")
CODE = (*PRODUCT, "migrations", "deploy")

MAX_LINES = 400
MAX_FUNCTION_LINES = 40
MAX_FILES = 25

LONG_FOR_A_REASON: dict[str, str] = {}
"""Files that may exceed MAX_LINES, each with its reason."""

LONG_FUNCTIONS_FOR_A_REASON: dict[str, str] = {
    "migrations/versions/0001_first_tables.py:upgrade": "one table after the other, as released",
    "migrations/versions/0003_answers.py:upgrade": "one column after the other, as released",
}
"""Functions that may exceed MAX_FUNCTION_LINES, as `path:name`, each with its reason."""

CROWDED_FOR_A_REASON: dict[str, str] = {"producer/cli": "one file per noun of the command line"}
"""Folders that may hold more than MAX_FILES Python files, each with its reason."""

NAMED_TWICE_FOR_A_REASON: dict[str, str] = {}
"""Class names that stand for two things, each with its reason."""

ENVIRONMENT_READERS = ("shared/settings.py",)

CELERY_PLACES = (
    "shared/broker/",
    "workers/__main__.py",
    "workers/app.py",
    "workers/celery/",
    "workers/delivery/",
    "workers/flower.py",
    "workers/tasks.py",
)

KINDS = {"manager", "handler", "handlers", "service", "services", "processor", "helper", "helpers"}
KINDS |= {"util", "utils", "context", "data", "info"}
"""Words that say nothing of a thing: no name ends in one."""

PRIVATE_WORDS = {"lane", "kept", "tidy", "desk", "board", "tails", "spans", "attendance", "dear"}
PRIVATE_WORDS |= {"able", "told", "heard", "minds", "bears", "purse", "silence"}
"""Words that only we understood: no name contains one."""

NAMED_SO_FOR_A_REASON: dict[str, str] = {}
"""Names with a banned word, as `path:name`, each with its reason (a base class demands it, say)."""

# Written with character classes, so that this file does not break its own rules.
UNFINISHED = re.compile(r"\b(?:T[O]DO|F[I]XME|X[X]X)\b")
REGISTRY = re.compile(
    r"(?:[\w-]+[.])*(?:py[p]i|pythonhosted|npm[j]s|crates|rubygems|jfrog|pkg[.]dev)[.](?:org|io|com|python[.]org)"
    r"|--(?:extra-)?index-ur[l]|PIP_[A-Z_]*INDEX"
)
MACHINE_PATH = re.compile(r"(?<![\w.~$})/])/(?:work|root|home|Users)/[\w.-]+")

MACHINE_PATHS_FOR_A_REASON: dict[str, str] = {}
"""Files that may name an absolute home path, each with its reason."""

KEY_LITERAL = re.compile(r"""'[^'\n]*headgate:|"[^"\n]*headgate:""")


def sources(root: Path, *folders: str) -> Iterator[tuple[str, Path]]:
    """Yield all Python files of the named folders, as (path from the root, path)."""
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            yield path.relative_to(root).as_posix(), path


def trees(root: Path, *folders: str) -> Iterator[tuple[str, ast.Module]]:
    """Yield all Python files of the named folders, as (path from the root, parsed file)."""
    for name, path in sources(root, *folders):
        yield name, ast.parse(path.read_text())


def tracked(root: Path) -> list[str]:
    """Return the files that git would commit, or, without git, all that are not hidden."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (root / ".git").exists():
        listing = subprocess.run(argv, cwd=root, capture_output=True, check=True)
        names = listing.stdout.decode().split("\0")
        return sorted(name for name in names if name and (root / name).is_file())
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(f.as_posix() for f in files if not any(part.startswith(".") for part in f.parts))


def long_files(root: Path) -> list[str]:
    """No file of the code is longer than MAX_LINES, but those with a reason."""
    breaches = []
    for name, path in sources(root, *CODE):
        lines = len(path.read_text().splitlines())
        if lines > MAX_LINES and name not in LONG_FOR_A_REASON:
            breaches.append(f"{name}:{lines}: longer than {MAX_LINES} lines")
    return breaches


def long_functions(root: Path) -> list[str]:
    """No function of the code is longer than MAX_FUNCTION_LINES, but those with a reason."""
    breaches = []
    for name, tree in trees(root, *CODE):
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            reason = LONG_FUNCTIONS_FOR_A_REASON.get(f"{name}:{node.name}")
            if lines > MAX_FUNCTION_LINES and not reason:
                breaches.append(f"{name}:{node.lineno}: {node.name} has {lines} lines")
    return breaches


def crowded_folders(root: Path) -> list[str]:
    """No folder of the code holds more than MAX_FILES Python files, but those with a reason."""
    files = Counter(name.rpartition("/")[0] for name, _ in sources(root, *CODE))
    return [
        f"{folder}:0: {count} Python files, more than {MAX_FILES}"
        for folder, count in sorted(files.items())
        if count > MAX_FILES and folder not in CROWDED_FOR_A_REASON
    ]


def repeated_class_names(root: Path) -> list[str]:
    """Each class name of the product stands for one thing."""
    places = defaultdict(list)
    for name, tree in trees(root, *PRODUCT):
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and node.name not in NAMED_TWICE_FOR_A_REASON:
                places[node.name].append(f"{name}:{node.lineno}")
    return [
        f"{place}: the class name {word} also stands at {found[0]}"
        for word, found in sorted(places.items())
        for place in found[1:]
    ]


def environment_readers(root: Path) -> list[str]:
    """Only the settings read the environment."""
    breaches = []
    for name, tree in trees(root, *CODE):
        if name in ENVIRONMENT_READERS:
            continue
        for node in ast.walk(tree):
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
    for name, tree in trees(root, *PRODUCT):
        if name.startswith(CELERY_PLACES):
            continue
        for node in ast.walk(tree):
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


def words_of(name: str) -> list[str]:
    """Return the words of a snake_case or CamelCase name, in lower case."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)]


def is_banned(name: str) -> bool:
    """Return whether a name ends in a word that says nothing, or has one that is private."""
    words = words_of(name)
    return bool(words) and (words[-1] in KINDS or not PRIVATE_WORDS.isdisjoint(words))


def banned_names(root: Path) -> list[str]:
    """No module, package or class is named after its kind, or by a word of our own."""
    breaches = []
    for name, tree in trees(root, *PRODUCT):
        path = Path(name)
        found = [(1, path.parent.name if path.stem == "__init__" else path.stem)]
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found.append((node.lineno, node.name))
        for line, word in found:
            if is_banned(word) and f"{name}:{word}" not in NAMED_SO_FOR_A_REASON:
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


def references(root: Path) -> list[str]:
    """What comments, docstrings and documents refer to exists."""
    return dead_references(root, tracked(root))


def lua_files(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield all Lua scripts, as (path from the root, lines)."""
    for path in sorted((root / "shared" / "broker" / "lua").rglob("*.lua")):
        yield path.relative_to(root).as_posix(), path.read_text().splitlines()


def lua_heads(root: Path) -> list[str]:
    """Every Lua script opens with comments: its purpose, KEYS, ARGV and its result."""
    breaches = []
    for name, lines in lua_files(root):
        head = []
        for line in lines:
            if line.strip() and not line.startswith("--"):
                break
            comment = line.removeprefix("--").strip()
            if not comment.startswith("@"):
                head.append(comment)
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
                breaches.append(f"{name}:1: its head does not name {part}")
    return breaches


def lua_key_literals(root: Path) -> list[str]:
    """No Lua script spells a key: Python puts a table of their names in front of it."""
    return [
        f"{name}:{number}: spells a key of Redis"
        for name, lines in lua_files(root)
        for number, line in enumerate(lines, 1)
        if not line.lstrip().startswith("--") and KEY_LITERAL.search(line)
    ]


RULES = (
    long_files,
    long_functions,
    crowded_folders,
    repeated_class_names,
    environment_readers,
    celery_importers,
    banned_names,
    unfinished,
    registry_hosts,
    machine_paths,
    references,
    lua_heads,
    lua_key_literals,
)
