"""What comments, docstrings and documents name must be in the repository.

References are found by their form: a path or a file name with an ending of ours, a folder below a
top-level folder, a module below `headgate`, a test, a link of a document. Text that only looks like
one can be said otherwise, or gets a reason in `NO_REFERENCES`.
"""

import ast
import io
import posixpath
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

NO_REFERENCES: dict[str, str] = {}
"""Words that look like references, each with its reason."""

TOPS = ("deploy", "docs", "headgate", "migrations", "producer", "shared", "tests", "workers")
TEST_FOLDERS = ("integration", "promises", "releases", "soak", "support", "unit")

ENDINGS = "json|jsonl|lock|lua|md|png|py|service|sh|toml|yaml|yml"
NOT_BEFORE = r"(?<![\w./~${}<>*@:-])"
NOT_AFTER = r"(?![\w/@*-]|[.]\w)"
FILE = re.compile(
    rf"{NOT_BEFORE}((?:[\w.-]+/)*[\w-]+@?[.](?:{ENDINGS})){NOT_AFTER}(?:::(test_\w+))?"
)
FOLDER = re.compile(rf"{NOT_BEFORE}((?:{'|'.join(TOPS)})(?:/[\w-]+)+)/?{NOT_AFTER}")
MODULE = re.compile(rf"{NOT_BEFORE}headgate[.]((?:producer|shared|workers)(?:[.][a-z_]\w*)+)")
TEST = re.compile(r"(?<![\w./:])(test_\w+)\b(?![/*]|[.]\w)")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[\w-]*)?\)")
URL = re.compile(r"\w+://\S+")
FENCE = re.compile(r"^ {0,3}```.*?^ {0,3}```", re.M | re.S)

OUTSIDE = re.compile(r"\bthe contract(?:'s)?\b|\bCelery reference\b", re.I)
"""Names of texts that once stood beside the repository."""


def comments_and_docstrings(text: str) -> Iterator[tuple[int, str]]:
    """Yield the comments and the bare strings of a Python file, as (line, text)."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(said)), lineno=line):
                yield line, re.sub(r"\s+", " ", said)
            case _:
                pass


def prose(name: str, text: str) -> list[tuple[int, str]]:
    """Return what a file says to people, as (line, text): all of it, or its comments."""
    if name.endswith(".py"):
        return list(comments_and_docstrings(text))
    if name.endswith(".md"):
        text = FENCE.sub(lambda found: "\n" * found.group(0).count("\n"), text)
        return list(enumerate(text.splitlines(), 1))
    mark = "--" if name.endswith(".lua") else "#"
    lines = enumerate(text.splitlines(), 1)
    return [(n, line[line.index(mark) :]) for n, line in lines if mark in line]


def is_read(name: str) -> bool:
    """Return whether a file is one that people read and write."""
    ends = (".py", ".md", ".lua", ".toml", ".yaml", ".yml", ".sh", ".service", "Makefile")
    return name.endswith((*ends, "Dockerfile")) or name.startswith(".env")


class Repository:
    """The files of a tree, and the tests in them, to look references up in."""

    def __init__(self, root: Path, files: list[str]) -> None:
        """Index the files, which are paths from the root."""
        self._ends: set[str] = set()
        self._folders: set[str] = set()
        self._tests: dict[str, set[str]] = {}
        for file in files:
            parts = file.split("/")
            self._ends |= {"/".join(parts[n:]) for n in range(len(parts))}
            self._folders |= {"/".join(parts[:n]) for n in range(1, len(parts))}
            if parts[0] == "tests" and file.endswith(".py"):
                found = re.findall(r"def (test_\w+)", (root / file).read_text())
                self._tests[file] = {*found, parts[-1].removesuffix(".py")}

    def has_file(self, path: str) -> bool:
        """Return whether the path of some file ends in this one."""
        path = re.sub(r"^([.]{1,2}/)+", "", path)
        return path in self._ends or path.removeprefix("headgate/") in self._ends

    def has_folder(self, path: str) -> bool:
        """Return whether a folder or a module has this path, as imported or as it stands."""
        for name in (path, path.removeprefix("headgate/")):
            if name in self._folders or name in self._ends or f"{name}.py" in self._ends:
                return True
        return False

    def has_module(self, module: str) -> bool:
        """Return whether `producer.x.y` is a module, a package or a name in one."""
        parts = module.split(".")
        return any(self.has_folder("/".join(parts[:n])) for n in range(2, len(parts) + 1))

    def has_test(self, test: str, file: str = "") -> bool:
        """Return whether a test of this name exists, in the file if one is named."""
        return any(test in found for name, found in self._tests.items() if name.endswith(file))


def _dead_links(text: str, name: str, repository: Repository) -> Iterator[str]:
    for target in LINK.findall(URL.sub("", text)):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if not (repository.has_file(path) or repository.has_folder(path)):
            yield f"{target} does not exist"


def _dead_files(text: str, name: str, repository: Repository) -> Iterator[str]:
    for path, test in FILE.findall(text):
        first = path.split("/")[0]
        if name.endswith(".md") and first not in (*TOPS, *TEST_FOLDERS) and path[:5] != "test_":
            continue  # a document speaks of its reader's files, too
        if not path.endswith((".py", ".lua", ".md")) and first not in TOPS:
            continue
        if not repository.has_file(path):
            yield f"{path} does not exist"
        elif test and not repository.has_test(test, path):
            yield f"{path} has no {test}"


def _dead_in(text: str, name: str, repository: Repository) -> Iterator[str]:
    """Yield what a text of the file `name` refers to and nobody finds."""
    if name.endswith(".md"):
        yield from _dead_links(text, name, repository)
        text = LINK.sub("]", text)
    text = URL.sub("", text)
    yield from _dead_files(text, name, repository)
    for path in FOLDER.findall(text):
        if not repository.has_folder(path):
            yield f"{path} does not exist"
    for module in MODULE.findall(text):
        if not repository.has_module(module):
            yield f"headgate.{module} does not exist"
    for test in TEST.findall(FILE.sub("", text)):
        if not repository.has_test(test):
            yield f"{test} does not exist"
    for found in OUTSIDE.findall(text):
        yield f"{found} is not in the repository"


def dead_references(root: Path, files: list[str]) -> list[str]:
    """Return the breaches of a tree whose files these are."""
    repository = Repository(root, files)
    breaches = (
        f"{name}:{line}: {dead}"
        for name in filter(is_read, files)
        for line, text in prose(name, (root / name).read_text())
        for dead in _dead_in(text, name, repository)
        if dead.split()[0] not in NO_REFERENCES
    )
    return list(dict.fromkeys(breaches))
