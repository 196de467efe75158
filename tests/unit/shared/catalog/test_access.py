"""Keys and proxies are checked before the first call, and named without the secret."""

from pathlib import Path

import pytest

from headgate.shared import settings
from headgate.shared.catalog import access, catalog
from headgate.shared.errors import SettingError, WrongUse
from headgate.shared.settings import Settings

KEY = "sk-swordfish-1234"
VENDOR = "https://api.openai.com/v1"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no proxy and no .env file."""
    monkeypatch.chdir(tmp_path)
    for name in settings.environment():
        if name.lower().endswith(("_proxy", "_api_key")):
            monkeypatch.delenv(name)


def fault(in_force: Settings | None = None) -> SettingError:
    """The error of the check at start."""
    with pytest.raises(SettingError) as caught:
        access.check(in_force or Settings(), catalog.load(None))
    return caught.value


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (f"{KEY}\nsecond line", "a line break in it"),
        (f"{KEY}\r\nsecond", "a line break in it"),
        (f"sk-\u200b{KEY}", "U+200B (ZERO WIDTH SPACE)"),
        (f"{KEY}\u00e9", "U+00E9 (LATIN SMALL LETTER E WITH ACUTE)"),
        (f"sk\x07{KEY}", "U+0007"),
        (f"sk\t{KEY}", "U+0009"),
    ],
)
def test_a_key_that_no_header_holds_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str, what: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    error = fault()
    assert error.field == "OPENAI_API_KEY"
    assert what in error.remedy
    assert "copy the key again" in error.remedy
    assert "swordfish" not in str(error)


@pytest.mark.parametrize("around", ["\n", "\r\n", "  ", "\t"])
def test_blanks_and_line_breaks_around_a_key_are_cut(
    monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", f"{around}{KEY}{around}")
    models = catalog.load(None)
    access.check(Settings(), models)
    assert access.keys_of(Settings(), models.providers["anthropic"]) == [KEY]


def test_a_key_of_blanks_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " \n")
    models = catalog.load(None)
    assert access.keys_of(Settings(), models.providers["openai"]) == []


@pytest.mark.parametrize("name", ["OPENAI_ORG_ID", "OPENAI_PROJECT_ID"])
def test_what_else_goes_into_headers_is_checked_too(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "org-1\n")
    assert getattr(settings.load(), name.lower()) == "org-1"
    monkeypatch.setenv(name, "org\n1")
    with pytest.raises(SettingError, match="one line of plain ASCII") as caught:
        settings.load()
    assert caught.value.field == name


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY"])
def test_a_proxy_of_another_kind_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv(name, "socks5://me:swordfish@127.0.0.1:1080")
    error = fault()
    assert (error.field, error.value) == (name, "socks5://me:***@127.0.0.1:1080")
    assert "only http:// and https:// proxies can be used" in error.remedy
    assert "add api.openai.com to NO_PROXY" in error.remedy
    assert "swordfish" not in str(error)


def test_no_proxy_is_obeyed_and_nobody_without_a_key_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    models = catalog.load(None)
    access.check(Settings(), models)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "example.org,api.openai.com")
    access.check(Settings(), models)
    assert access.proxy_of(VENDOR) is None


@pytest.mark.parametrize(
    ("proxy", "read"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("https://me:secret@proxy", "https://me:secret@proxy"),
        ("proxy:3128", "http://proxy:3128"),
    ],
)
def test_http_proxies_are_taken_also_without_a_scheme(
    monkeypatch: pytest.MonkeyPatch, proxy: str, read: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    assert access.proxy_of(VENDOR) == read
    assert access.proxy_of("http://api.example.org") is None


def test_an_address_with_a_password_is_refused_because_only_the_key_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://me:swordfish@api.example.org/v1")
    with pytest.raises(WrongUse, match="take user and password out") as caught:
        access.check(Settings(), catalog.load(None))
    assert caught.value.field == "the base URL of openai"
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "[::1]:80"])
def test_this_machine_is_reached_without_a_proxy(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy:3128")
    assert access.proxy_of(f"http://{host}/v1") is None


def test_a_key_is_read_from_the_env_file_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    openai, in_force = catalog.load().providers["openai"], Settings()
    for key in ("sk-old", "sk-new"):
        (tmp_path / ".env").write_text(f"OPENAI_API_KEY={key}\n")
        assert access.keys_of(in_force, openai) == [key]
    (tmp_path / ".env").unlink()
    assert access.keys_of(in_force, openai) == []
