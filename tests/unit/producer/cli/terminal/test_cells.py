"""Values as people read them: thousands, four digits of money, relative times, short ids."""

from __future__ import annotations

import pytest

from headgate.producer.cli.terminal import cells
from headgate.shared.job.ids import rfc3339

NOW_MS = 1_760_000_000_000


@pytest.mark.parametrize(
    ("exact", "shown"),
    [
        ("0", "0"),
        ("0.0000222", "<0.0001"),
        ("0.0001", "0.0001"),
        ("0.00015", "0.0002"),
        ("1.5", "1.5000"),
        ("12345.67891", "12,345.6789"),
        ("-0.5", "-0.5000"),
    ],
)
def test_money_has_four_digits_and_is_exact_in_a_pipe(exact: str, shown: str) -> None:
    cell = cells.usd(exact)
    assert cell is not None
    assert (cell.exact, cell.shown, cell.is_number) == (exact, shown, True)


@pytest.mark.parametrize(
    ("ago_ms", "shown"),
    [(0, "now"), (12_000, "12 s ago"), (300_000, "5 min ago"), (-7_200_000, "in 2 h")],
)
def test_a_moment_is_told_from_now(ago_ms: int, shown: str) -> None:
    moment = rfc3339(NOW_MS - ago_ms)
    cell = cells.moment(moment, NOW_MS)
    assert cell is not None
    assert (cell.exact, cell.shown) == (moment, shown)


@pytest.mark.parametrize(
    ("ms", "shown"), [(340, "340 ms"), (2140, "2.1 s"), (99_999, "100.0 s"), (180_000, "3 min")]
)
def test_a_time_has_a_unit_of_its_size(ms: int, shown: str) -> None:
    cell = cells.milliseconds(ms)
    assert cell is not None
    assert (cell.exact, cell.shown) == (str(ms), shown)


def test_ids_are_cut_to_what_tells_them_apart() -> None:
    first = "0192f3c4-5b6a-7abc-8def-000000000001"
    same_moment = "0192f3c4-5b6a-7abc-9def-000000000002"
    other = "0192f3c4-5b6a-7abd-8def-000000000003"
    assert shown([first, other, None]) == [first[:18], other[:18], None]
    assert shown([first, same_moment]) == [first[:23], same_moment[:23]]
    assert shown(["task-1", "task-2"]) == ["task-1", "task-2"]
    assert shown([f"batch_{first}"], "batch_") == [f"batch_{first[:18]}"]
    assert shown([first, first]) == [first[:18]] * 2
    like_first = first[:-1] + "9"
    assert shown([first, like_first]) == [first, like_first]


def shown(ids: list[str | None], prefix: str = "") -> list[str | None]:
    return [None if cell is None else cell.shown for cell in cells.short_ids(ids, prefix)]


def test_nothing_stays_nothing() -> None:
    assert [cells.usd(None), cells.number(None), cells.state(None), cells.milliseconds(None),
            cells.moment(None, NOW_MS)] == [None] * 5  # fmt: skip
