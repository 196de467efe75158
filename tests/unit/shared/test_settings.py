"""Settings: one reader, named faults, masked secrets."""

from pathlib import Path

import pytest

from headgate.shared import settings
from headgate.shared.errors import SettingError
from tests import ROOT


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_those_of_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEADGATE_MODEL")
    found = settings.load()
    assert (found.redis_url, found.database_url, found.catalog) == (None, None, None)
    assert (found.concurrency, found.model, found.timeout_s) == (500, "auto", 120)
    assert found.home_path == Path.cwd() / ".headgate"
    assert (found.max_attempts, found.max_attempts_per_job) == (5, 8)
    assert (found.backoff_s, found.backoff_max_s, found.cache_ttl_s) == (1, 30, 1800)
    assert (found.result_ttl_s, found.results_mb) == (86_400, 1024)


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("HEADGATE_CONCURRENCY", "many", "whole number"),
        ("HEADGATE_CONCURRENCY", "0", "at least 1"),
        ("HEADGATE_REDIS_URL", "http://x", "redis://"),
        ("HEADGATE_REDIS_URL", "redis+cluster://x", "Cluster"),
        ("HEADGATE_DATABASE_URL", "mysql://x", "postgresql://"),
        ("HEADGATE_LEASE_S", "0.5", "at least 1"),
        ("HEADGATE_TIMEOUT_S", "nan", "finite number"),
        ("HEADGATE_LOG_LEVEL", "LOUD", "DEBUG"),
        ("HEADGATE_KEY_PREFIX", "a b", "at its end"),
        ("HEADGATE_SIMULATOR_URL", "localhost:1", "https://"),
        ("OPENAI_BASE_URL", "no url", "https://"),
        ("HEADGATE_DATABASE_URL", "postgresql+asyncpg://h/d", "postgresql://"),
    ],
)
def test_a_bad_value_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, remedy: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingError) as raised:
        settings.load()
    assert raised.value.field == name
    assert value in str(raised.value)
    assert remedy in str(raised.value)


def test_the_example_file_has_the_description_of_every_setting() -> None:
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    for field, form in settings.Settings.model_fields.items():
        assert form.description is not None
        assert f"# {form.description}\n# {settings.variable(field)}=" in example


def test_a_misspelt_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_CONCURENCY", "5")
    with pytest.raises(SettingError, match="HEADGATE_CONCURRENCY"):
        settings.load()


def test_a_dotenv_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("HEADGATE_CONCURRENCY=7\nHEADGATE_LEASE_S=9\n")
    monkeypatch.setenv("HEADGATE_CONCURRENCY", "8")
    found = settings.load()
    assert (found.concurrency, found.lease_s) == (8, 9)
    assert settings.read("HEADGATE_CONCURRENCY") == ("8", "environment")
    assert settings.read("HEADGATE_LEASE_S") == ("9", ".env")
    assert settings.read("HEADGATE_HOME") == (None, "default")


def test_a_dotenv_that_cannot_be_read_is_named() -> None:
    Path(".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingError, match=r"\.env"):
        settings.load()


def test_an_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_CONCURRENCY", "")
    assert settings.load().concurrency == 500


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY"])
def test_no_key_is_ever_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "sk-very-secret")
    assert "sk-very-secret" not in repr(settings.load())
    found = settings.secret(name)
    assert found is not None
    assert found.get_secret_value() == "sk-very-secret"
    assert "sk-very-secret" not in repr(found)


def test_a_password_in_an_address_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.masked("redis://u:pass@h:1/0") == "redis://u:***@h:1/0"
    assert settings.masked("redis://h:1/0") == "redis://h:1/0"
    monkeypatch.setenv("HEADGATE_REDIS_URL", "http://u:hunter2@h")
    with pytest.raises(SettingError) as raised:
        settings.load()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("HEADGATE_CONCURENCY", "5", "'5'"),
        ("HEADGATE_REDIS", "redis://:hidden@host", "redis://:***@host"),
        ("HEADGATE_OPENAI_API_KEY", "sk-hidden", "***"),
        ("HEADGATE_PASSWORT", "hidden", "***"),
    ],
)
def test_a_misspelt_setting_is_shown_with_its_value_unless_that_is_a_secret(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, shown: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingError) as raised:
        settings.load()
    assert name in str(raised.value)
    assert shown in str(raised.value)
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("HEADGATE_CONCURRENCY: secret\n", 1),
        ("A=1\n\n\nsecret words\nB=2\n", 4),
        ("A=1\nB='secret\nC=3\n", 2),
        ("A=1\n=secret\n", 2),
    ],
)
def test_a_line_of_a_dotenv_that_is_no_setting_is_named_and_not_quoted(
    text: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    Path(".env").write_text(text)
    with pytest.raises(SettingError, match=rf"\.env.*line {number}\b") as raised:
        settings.load()
    assert "secret" not in str(raised.value)
    assert not caplog.records


def test_a_dotenv_may_hold_comments_exports_and_names_without_a_value() -> None:
    text = "# a comment\n\nexport HEADGATE_CONCURRENCY=7\nALONE\nB='two\nlines'\n"
    Path(".env").write_text(text)
    assert settings.load().concurrency == 7


def test_a_database_url_may_say_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE_DATABASE_URL", "postgres://u:p@host/d")
    assert settings.load().database_url == "postgresql://u:p@host/d"
