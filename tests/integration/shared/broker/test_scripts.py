"""Scripts and Python name the same keys and hold the same figures; every file compiles."""

import inspect
import json
from typing import Any

import pytest

from headgate.shared.broker import figures
from headgate.shared.broker.include import FOLDER, composed, read_file
from headgate.shared.broker.keys import Keys
from tests.support.servers import ValkeyServer

FILES = sorted(
    path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.lua")
)
METHODS = {
    name: list(inspect.signature(method).parameters)[1:]
    for name, method in inspect.getmembers(Keys, inspect.isfunction)
    if not name.startswith("_") and name != "kinds"
}


def evaluated(server: ValkeyServer, source: str, prefix: str = "") -> Any:
    """What this Lua source returns, after all that it includes."""
    text = composed("test", lambda name: source if name == "test" else read_file(name))
    with server.client() as client:
        reply: Any = client.eval(text, 0, prefix)
        return reply


@pytest.mark.parametrize("prefix", ["", "other:", "{team a}:"])
def test_lua_and_python_agree_on_every_key(valkey: ValkeyServer, prefix: str) -> None:
    calls = {
        name: f"KEY.{name}({', '.join(repr(part) for part in parts)})" if parts else f"KEY.{name}"
        for name, parts in METHODS.items()
    }
    source = f"-- @include generated/keys\nreturn {{{', '.join(calls.values())}}}\n"
    found = evaluated(valkey, source, prefix)
    keys = Keys(prefix)
    assert found == [getattr(keys, name)(*parts) for name, parts in METHODS.items()]


def test_lua_and_python_agree_on_every_figure(valkey: ValkeyServer) -> None:
    names = ", ".join(f"'{name}', FIGURES.{name}" for name in figures.ALL)
    source = f"-- @include generated/figures\nreturn cjson.encode({{{names}}})\n"
    found = json.loads(evaluated(valkey, source))
    written = dict(zip(found[::2], found[1::2], strict=True))
    assert written == {
        name: [*value] if isinstance(value, tuple) else value for name, value in figures.ALL.items()
    }


@pytest.mark.parametrize("name", FILES)
def test_every_file_compiles_with_what_it_includes(valkey: ValkeyServer, name: str) -> None:
    with valkey.client() as client:
        assert client.script_load(composed(name, read_file))


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("lib/")])
def test_every_library_runs_with_nothing_but_what_it_includes(
    valkey: ValkeyServer, name: str
) -> None:
    assert evaluated(valkey, f"-- @include {name}\nreturn 'done'\n") == "done"
