"""The figures beside the bar of a batch: rates of the last half minute, money, clocks."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from headgate.producer.batch.pace import WINDOW_S, Pace, pool_finder
from headgate.shared.catalog import catalog
from headgate.shared.catalog.schema import Pool


def result(**fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 60, "output_tokens": 40}
    return {"usage": usage, "cost_usd": "0.01", "model_used": "a", "cached": None} | fields


def pace(**limits: int | None) -> Pace:
    known = {name: Pool(key=f"p/{name}", tpm=tpm) for name, tpm in limits.items()}
    return Pace(100, known.get, 1000.0, Decimal("0.5"))


def test_rates_are_those_of_the_last_half_minute() -> None:
    going = pace(a=600_000)
    going.add(1001.0, [result()] * 10)
    going.add(1060.0, [result()] * 30)
    found = going.figures(1060.0, done=40, failed=0)
    assert found.answers_per_s == 30 / WINDOW_S == 1.0
    assert found.tokens_per_min == 30 * 100 / WINDOW_S * 60
    assert (found.left, found.remaining_s, found.elapsed_s) == (60, 60.0, 60.0)
    assert going.figures(1200.0, done=40, failed=0).remaining_s is None


def test_money_counts_what_was_written_before_and_says_what_is_unknown() -> None:
    going = pace(a=None)
    going.add(1001.0, [result(), result(cost_usd="0.0000222")])
    assert going.figures(1001.0, done=2, failed=0).usd == Decimal("0.5100222")
    assert "0.5100 USD," in going.figures(1001.0, done=2, failed=0).in_words()
    going.add(1002.0, [result(cost_usd=None)])
    assert "and answers without a price" in going.figures(1002.0, done=3, failed=0).in_words()


def test_the_limit_is_that_of_all_pools_that_answered() -> None:
    going = pace(a=1000, b=500)
    going.add(1001.0, [result(model_used="a")])
    assert going.figures(1001.0, done=1, failed=0).tokens_limit == 1000
    going.add(1001.0, [result(model_used="b"), result(model_used="c", cached="exact")])
    assert going.figures(1001.0, done=3, failed=0).tokens_limit == 1500
    going.add(1001.0, [result(model_used="unlimited")])
    assert going.figures(1001.0, done=4, failed=0).tokens_limit is None


def test_the_figures_in_words() -> None:
    going = pace(a=600_000)
    going.running = 1200
    going.add(1010.0, [result()] * 20)
    assert going.figures(1010.0, done=20, failed=0).in_words() == (
        "1,200 running, 80 left, 2.0 answers/s, 12,000 of 600,000 tokens/min, 0.7000 USD, "
        "10 s passed, about 40 s to go"
    )


def test_failed_lines_have_no_usage_and_no_model() -> None:
    going = pace()
    going.add(1001.0, [{"status": "failed", "usage": None, "cost_usd": "0", "model_used": None}])
    assert going.figures(1001.0, done=1, failed=1).tokens_limit is None


def test_the_pool_of_a_model_that_the_catalog_has_lost_is_unknown() -> None:
    pool_of = pool_finder(catalog.load(None))
    found = pool_of("gpt-4o-mini")
    assert found is not None
    assert found.key == "openai/gpt-4o-mini"
    assert pool_of("no-such-model") is None
