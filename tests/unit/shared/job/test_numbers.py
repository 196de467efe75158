"""Numbers of numpy and pandas in a request: taken as plain ones."""

import importlib
import sys
import types
from typing import Any

import pytest

from headgate.shared.errors import InvalidRequest
from headgate.shared.job.request import request_from


class Scalar:
    """As numpy's scalars: no number of Python's own, and `tolist` returns one."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def tolist(self) -> Any:
        return self._value


Scalar.__module__ = "numpy"


class Float64(float):
    """As numpy.float64, which is a float that orjson does not write."""

    def tolist(self) -> float:
        return float(self)


Float64.__module__ = "numpy"


@pytest.fixture
def scalar(monkeypatch: pytest.MonkeyPatch) -> Any:
    """numpy's own scalars where it is installed; else a stand-in."""
    try:
        np: Any = importlib.import_module("numpy")
    except ImportError:
        monkeypatch.setitem(sys.modules, "numpy", types.ModuleType("numpy"))
        return lambda value: Float64(value) if isinstance(value, float) else Scalar(value)
    return lambda value: np.array(value)[()]


def test_numpys_numbers_and_arrays_are_taken_as_plain_ones(scalar: Any) -> None:
    found = request_from(
        {
            "prompt": "a",
            "params": {"max_tokens": scalar(50), "temperature": scalar(0.5), "x": [scalar(True)]},
            "deadline_s": scalar(60),
            "metadata": {"row": scalar(7), "deep": {"score": scalar(0.25)}},
            "variables": {"n": scalar(3)},
            "max_cost_usd": scalar(0.5),
        }
    )
    assert found.params == {"max_tokens": 50, "temperature": 0.5, "x": [True]}
    assert [type(v) for v in found.params.values()] == [int, float, list]
    assert found.metadata == {"row": 7, "deep": {"score": 0.25}}
    assert type(found.metadata["row"]) is int
    assert type(found.metadata["deep"]["score"]) is float
    assert (found.deadline_s, found.variables, found.max_cost_usd) == (60.0, {"n": 3}, "0.5")
    tokens = request_from({"input": [scalar(5), scalar(6)]})
    assert tokens.input == [5, 6]


def test_a_whole_number_may_come_as_a_float() -> None:
    found = request_from({"prompt": "a", "params": {"max_tokens": 50.0, "top_p": 1.0, "x": 2.0}})
    assert found.params == {"max_tokens": 50, "top_p": 1.0, "x": 2.0}
    assert [type(v) for v in found.params.values()] == [int, float, float]
    for wrong in (50.5, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match=r"params\.max_tokens: .*: give a whole number"):
            request_from({"prompt": "a", "params": {"max_tokens": wrong}})
