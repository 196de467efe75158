"""What stands beside a name in the source: docstrings of attributes and `#:` comments."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from types import ModuleType

from tests.docs.reference.markdown import entries_of


@cache
def attribute_docs(owner: type) -> dict[str, str]:
    """Return the string below each field of a class, by the field's name."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    found: dict[str, str] = {}
    for field, below in pairwise(body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                found[name] = " ".join(words.split())
            case _:
                pass
    return found


@cache
def docstring_fields(owner: type) -> dict[str, str]:
    """Return what the docstring of a class lists as `name: words`, a line each, by the name."""
    found: dict[str, str] = {}
    for block in inspect.cleandoc(owner.__doc__ or "").split("\n\n"):
        for names, words in entries_of(block):
            found.update({name.strip(): words for name in names.split(",")})
    return found


@cache
def comments_above(module: ModuleType) -> dict[str, str]:
    """Return the `#:` comment above each assignment of a module, by the name assigned."""
    found: dict[str, str] = {}
    above: list[str] = []
    for line in inspect.getsource(module).splitlines():
        if line.startswith("#:"):
            above.append(line.removeprefix("#:").strip())
            continue
        name = line.partition("=")[0].partition(":")[0].strip()
        if above and name.isidentifier():
            found[name] = " ".join(above)
        above = []
    return found
