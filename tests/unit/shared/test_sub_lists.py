"""Where kombu puts a message with a priority: we look in the same lists, in the same order."""

import pytest
from kombu.transport.redis import PRIORITY_STEPS, Channel

from headgate.shared.errors import SettingError
from headgate.shared.settings import Settings, load
from headgate.shared.sub_lists import SubLists


class _Kombu(Channel):
    """A channel that connects to nothing; it only names lists."""

    def list_of(self, queue: str, priority: int) -> str:
        """The list in which kombu puts a message."""
        return str(self._q_for_pri(queue, priority))  # type: ignore[attr-defined]  # no stub

    def __init__(self, sub_lists: SubLists) -> None:
        self.priority_steps = [*sub_lists.steps]
        self.sep = sub_lists.sep

    def __del__(self) -> None:
        """Close nothing."""


LISTS = [
    SubLists(),
    SubLists(steps=tuple(range(10))),
    SubLists(steps=(0,)),
    SubLists(sep=":", steps=(0, 5)),
]


@pytest.mark.parametrize("sub_lists", LISTS, ids=str)
def test_each_priority_has_the_list_that_kombu_puts_it_in(sub_lists: SubLists) -> None:
    kombu = _Kombu(sub_lists)
    names = ["q", *(f"q{ending}" for ending in sub_lists.endings)]
    for priority in range(10):
        assert sub_lists.step_of(priority) == kombu.priority(priority)
        place = sub_lists.steps.index(sub_lists.step_of(priority))
        assert names[place] == kombu.list_of("q", priority)
    assert names == [kombu.list_of("q", step) for step in sub_lists.steps]


def test_the_usual_options_are_those_of_kombu() -> None:
    assert SubLists().steps == tuple(PRIORITY_STEPS)
    assert SubLists().sep == Channel.sep
    assert Settings().sub_lists == SubLists()


@pytest.mark.parametrize("odd", [None, True, "5", 2.5, [3]])
def test_what_is_no_priority_counts_as_the_most_urgent(odd: object) -> None:
    assert SubLists().step_of(odd) == 0


@pytest.mark.parametrize(("value", "step"), [(-3, 0), (99, 9), (4, 3)])
def test_a_priority_out_of_range_counts_as_the_nearest(value: int, step: int) -> None:
    assert SubLists().step_of(value) == step


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STEPS", "3,6"), ("STEPS", "0,6,3"), ("STEPS", "0,x"), ("STEPS", "0,10"), ("STEPS", "0,0"),
        ("SEP", "a b"), ("SEP", r"\n"), ("SEP", "x" * 17), ("SEP", "é"), ("SEP", ":1"),
    ],
)  # fmt: skip
def test_options_that_kombu_could_not_have_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"HEADGATE_CELERY_PRIORITY_{name}", value)
    with pytest.raises(SettingError) as raised:
        load()
    assert f"HEADGATE_CELERY_PRIORITY_{name}" in str(raised.value)


def test_other_options_are_read_as_an_operator_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_CELERY_PRIORITY_STEPS", "0, 5")
    monkeypatch.setenv("HEADGATE_CELERY_PRIORITY_SEP", r"\x1f:")
    assert load().sub_lists == SubLists("\x1f:", (0, 5))
