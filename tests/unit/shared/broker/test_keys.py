"""Each key says its type, what it holds and how long it lives."""

import inspect
import re

import pytest

from headgate.shared.broker.keys import Keys

METHODS = {
    name: method
    for name, method in inspect.getmembers(Keys, inspect.isfunction)
    if not name.startswith("_") and name != "kinds"
}

FORM = re.compile(r"^(LIST|ZSET|HASH|SET|STRING|STREAM): [^;]+; [^;]+\.$")
LIFETIME = re.compile(r"\b(leaves|expires|stays|drops)\b")


def name_of(method: str, keys: Keys) -> str:
    parts = list(inspect.signature(METHODS[method]).parameters)[1:]
    name: str = METHODS[method](keys, *parts)
    return name


@pytest.mark.parametrize("method", METHODS)
def test_a_key_has_a_type_and_a_lifetime(method: str) -> None:
    first = (inspect.getdoc(METHODS[method]) or "").partition("\n\n")[0]
    assert FORM.match(first), first
    assert LIFETIME.search(first.partition(";")[2]), first


@pytest.mark.parametrize("method", METHODS)
def test_the_prefix_stands_before_each_key(method: str) -> None:
    assert name_of(method, Keys("p:")) == f"p:{name_of(method, Keys())}"


def test_no_two_keys_have_one_name() -> None:
    names = [name_of(method, Keys()) for method in METHODS]
    assert len({*names}) == len(names)
