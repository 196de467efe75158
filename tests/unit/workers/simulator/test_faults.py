"""The grammar of faults, and how often each strikes."""

import pytest

from headgate.workers.simulator.faults import (
    Fault,
    FaultScript,
    parse_fault,
    parse_rates,
    parse_rules,
    pick,
    retry_after_text,
)


def test_the_parts_of_a_fault_may_come_in_any_order() -> None:
    wanted = Fault("status", status=429, retry_after_s="2", times=3, model="gpt-*")
    assert parse_fault("times=3:429:retry-after=2:model=gpt-*") == wanted
    assert parse_fault("429:model=gpt-*:retry-after=2:times=3") == wanted


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("once:503", Fault("status", status=503, times=1)),
        ("429:retry-after-ms=250", Fault("status", status=429, retry_after_ms="250")),
        ("429:retry-after=-5", Fault("status", status=429, retry_after_s="-5")),
        ("429:retry-after=date-60", Fault("status", status=429, retry_after_s="date-60")),
        ("slow:ms=1500", Fault("slow", delay_ms=1500)),
        ("slow=1500", Fault("slow", delay_ms=1500)),
        ("slow", Fault("slow", delay_ms=5000)),
        ("insufficient_quota", Fault("quota")),
        ("cut-body", Fault("cut-body")),
        ("slow_down:retry-after=2", Fault("slow_down", retry_after_s="2")),
        ("quota:until=2026-12-01", Fault("quota", until="2026-12-01")),
        ("usage:tokens=1000000000000", Fault("usage", tokens=10**12)),
        ("large:mb=3", Fault("large", mb=3)),
        ("bomb", Fault("bomb", mb=100)),
        ("endless-line", Fault("endless-line")),
        ("drip", Fault("drip", delay_ms=1000)),
        ("500:mb=300", Fault("status", status=500, mb=300)),
    ],
)
def test_faults_are_read_from_their_short_form(spec: str, fault: Fault) -> None:
    assert parse_fault(spec) == fault


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "bogus",
        "status",
        "999",
        "once",
        "500:503",
        "times=x:500",
        "429:retry-after=a\nb",
        "429:retry-after=date",
        "429:retry-after=epoch+1.5",
        "quota:until=soon",
        "endless:mb=3",
        "large:mb=x",
    ],
)
def test_a_fault_that_cannot_be_read_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="fault"):
        parse_fault(spec)


def test_rates_pick_a_fault_by_chance() -> None:
    rates = parse_rates("429:retry-after=2=0.1,slow:ms=9=0.2")
    found = [pick(rates, chance, "m") for chance in (0.05, 0.1, 0.29, 0.31)]
    assert [one and one.label for one in found] == ["429", "slow", "slow", None]


@pytest.mark.parametrize("specs", ["500", "500=2", "500=0.6,503=0.6", "500=-0.1", "500=nan"])
def test_rates_that_make_no_sense_are_refused(specs: str) -> None:
    with pytest.raises(ValueError, match=r"share|expected"):
        parse_rates(specs)


def test_a_directive_with_a_count_strikes_that_prompt_so_often_and_no_other() -> None:
    script = FaultScript()
    text = "hello [[fault:times=2:529]]"
    struck = [script.next(text, "m") is not None for _ in range(4)]
    assert struck == [True, True, False, False]
    assert script.next(text + " other", "m") is not None


def test_directives_strike_one_after_the_other() -> None:
    script = FaultScript()
    text = "[[fault:once:500]] then [[fault:once:429]]"
    found = [script.next(text, "m") for _ in range(3)]
    assert [one and one.label for one in found] == ["500", "429", None]


def test_a_directive_may_name_the_model_it_means() -> None:
    script = FaultScript()
    text = "[[fault:503:model=gpt-4o]]"
    assert script.next(text, "gpt-4o-mini") is None
    assert script.next(text, "gpt-4o") is not None


def test_posted_rules_come_before_directives_and_run_out() -> None:
    script = FaultScript()
    script.rules = parse_rules([{"match": "hello", "fault": "cut", "times": 1}])
    found = [script.next("hello [[fault:500]]", "m") for _ in range(2)]
    assert [one and one.label for one in found] == ["cut", "500"]


@pytest.mark.parametrize(
    "rules",
    [{}, [1], [{"match": "x"}], [{"fault": "500", "tmes": 1}], [{"fault": 500, "times": 0}]],
)
def test_rules_that_cannot_be_read_are_refused(rules: object) -> None:
    with pytest.raises(ValueError, match=r"rule|list"):
        parse_rules(rules)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("2.5", "2.5"),
        ("-5", "-5"),
        ("date+20", "Thu, 01 Jan 1970 00:17:00 GMT"),
        ("date-40", "Thu, 01 Jan 1970 00:16:00 GMT"),
        ("epoch+20", "1020"),
        ("epoch-40", "960"),
    ],
)
def test_moments_of_retry_after_count_from_now(amount: str, text: str) -> None:
    assert retry_after_text(amount, 1000.9) == text
