"""What is given to a client: taken by its usual names, or refused before anything is opened."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from headgate import AsyncClient, Client, InvalidRequest, Job, Result, SettingError, WrongUse
from headgate.producer.client.arguments import checked_settings, timeout_of
from headgate.producer.moments import ms_of, parse_day_or_moment
from headgate.producer.usage.period import between
from headgate.shared.job.ids import now_ms
from headgate.shared.settings import Settings


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("given", ["localhost", {"redis_url": "redis://h"}, 5, Settings])
def test_anything_but_settings_is_refused_with_what_to_do(kind: Any, given: Any) -> None:
    with pytest.raises(WrongUse) as caught:
        kind(given)
    assert caught.value.field == "settings"
    assert "Settings(redis_url=..., database_url=...)" in caught.value.remedy
    assert "HEADGATE_REDIS_URL" in caught.value.remedy


def test_a_url_of_another_server_is_refused_without_its_password() -> None:
    with pytest.raises(WrongUse) as caught:
        checked_settings("postgresql://u:s3cret@host/0")
    assert "s3cret" not in str(caught.value)
    assert "not the URL of a Redis" in str(caught.value)


def test_settings_and_nothing_are_taken_as_they_are(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert checked_settings(settings) is settings
    assert checked_settings(None) is None


def test_a_redis_url_stands_for_the_settings_of_the_environment_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADGATE_REDIS_URL", "redis://other")
    monkeypatch.setenv("HEADGATE_CONCURRENCY", "7")
    found = checked_settings("redis://:s3cret@host:7000/2")
    assert found is not None
    assert (found.redis_url, found.concurrency) == ("redis://:s3cret@host:7000/2", 7)
    with pytest.raises(SettingError, match="HEADGATE_REDIS_URL") as caught:
        checked_settings("redis://:s3cret@host:port")
    assert "s3cret" not in str(caught.value)


def test_an_argument_that_is_no_setting_is_refused_with_a_similar_name() -> None:
    with pytest.raises(SettingError) as caught:
        Settings(redis_urll="redis://:s3cret@h")
    assert str(caught.value) == (
        "redis_urll: 'redis://:***@h': no such setting; did you mean redis_url?"
    )
    with pytest.raises(SettingError, match=r"openai_key: '\*\*\*': .* openai_api_key"):
        Settings(openai_key="sk-1")


def test_the_timeout_has_two_names_of_which_one_is_given() -> None:
    assert [timeout_of(None, None), timeout_of(3, None), timeout_of(None, 3)] == [None, 3, 3]
    with pytest.raises(InvalidRequest, match="give one of them"):
        timeout_of(3, 3)
    with pytest.raises(InvalidRequest, match="timeout: -1: give a number of seconds"):
        timeout_of(None, -1)


class Asked:
    """A client that says how long it was asked to wait."""

    timeout_s: float | None = None

    def result(self, job_id: str, *, wait: bool = False, timeout_s: float | None = None) -> Result:
        self.timeout_s = timeout_s
        return Result(id=job_id, status="succeeded", model="m", submitted_at=None)


def test_a_job_waits_as_long_as_either_timeout_says() -> None:
    client: Any = Asked()
    for given in ({"timeout": 3}, {"timeout_s": 3}):
        client.timeout_s = None
        assert Job("id", client).result(**given).id == "id"
        assert client.timeout_s == 3


def test_a_moment_is_a_text_an_age_or_a_datetime() -> None:
    at = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
    exact = int(at.timestamp() * 1000)
    for given in (at, "2026-11-20T09:30:00Z", "2026-11-20T09:30:00", "2026-11-20T10:30:00+01:00"):
        assert ms_of("since", given) == exact, given
    before = now_ms()
    for age in ("1h", " 60m ", "3600s", timedelta(hours=1)):
        assert 0 <= ms_of("since", age) - (before - 3_600_000) < 60_000, age
    assert parse_day_or_moment("2026-11-20", "since") == at.date()


@pytest.mark.parametrize("given", [3600, "1 hour", "yesterday", datetime(2026, 11, 20), None])  # noqa: DTZ001
def test_what_is_no_moment_is_refused_with_its_forms(given: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"since: .*10m, 2h, 7d"):
        ms_of("since", given)


def test_a_prompt_that_is_given_twice_is_refused_by_every_method(tmp_path: Path) -> None:
    with Client(Settings(home=tmp_path)) as client:
        for method in (client.submit, client.route, client.check):
            with pytest.raises(InvalidRequest, match="prompt: 'b': is given twice"):
                method("a", prompt="b")
    assert not any(tmp_path.iterdir()), "nothing was opened"


def test_usage_takes_moments_as_texts() -> None:
    week, day = between("7d", None), between("2026-11-20", "2026-11-20")
    assert 0 <= (week.from_ms or 0) - (now_ms() - 7 * 86_400_000) + 60_000 < 120_000
    assert (day.until_ms or 0) - (day.from_ms or 0) == 86_400_000
    assert day.as_text()[0] == "2026-11-20T00:00:00.000Z"
    with pytest.raises(InvalidRequest, match="there is no such day"):
        between("2026-02-30", None)
