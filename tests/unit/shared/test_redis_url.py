"""Every form of HEADGATE_REDIS_URL: read once, refused with a remedy, never shown with a secret."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.producer.cli.settings import settings as settings_command
from headgate.shared import redis_url
from headgate.shared.servers import redis_check
from headgate.workers.celery import config


def test_plain_urls_are_read_with_their_defaults() -> None:
    bare = redis_url.read("redis://h")
    assert (bare.hosts, bare.database, bare.username, bare.password) == (
        (("h", 6379),), 0, None, None,
    )  # fmt: skip
    full = redis_url.read("redis://u:p%40s@h:1/3")
    assert (full.hosts, full.database, full.username, full.password) == (
        (("h", 1),), 3, "u", "p@s",
    )  # fmt: skip
    assert redis_url.read("redis://[::1]:7/?db=2").hosts == (("::1", 7),)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("redis://localhost/0", True),
        ("redis://LOCALHOST.:1/0", True),
        ("redis://db.localhost", True),
        ("redis://127.0.0.1:6379", True),
        ("redis://127.9.9.9", True),
        ("rediss://[::1]:6380/0", True),
        ("redis://[::ffff:127.0.0.1]", True),
        ("redis://0.0.0.0", True),
        ("redis+socket:///run/redis.sock", True),
        ("sentinel://127.0.0.1:1,localhost:2/0?master_name=m", True),
        ("sentinel://127.0.0.1:1,10.0.0.2:2/0?master_name=m", False),
        ("redis://redis:6379/0", False),
        ("redis://10.0.0.1", False),
        ("redis://[2001:db8::1]", False),
        ("redis://localhost.example.com", False),
        ("redis://127.0.0.1.example.com", False),
    ],
)
def test_which_addresses_are_this_machine(url: str, here: bool) -> None:
    assert redis_url.read(url).is_of_this_machine is here


def test_a_socket_is_read_with_its_login_and_database() -> None:
    found = redis_url.read("redis+socket://u:p@/run/my%20redis.sock?virtual_host=2")
    assert (found.path, found.database, found.password) == ("/run/my redis.sock", 2, "p")


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://u:p%2C@h1:1,h2,[::1]:3/2?master_name=m&sentinel_username=su&sentinel_password=s",
        "sentinel://u:p%2C@h1:1;sentinel://u:p%2C@h2;sentinel://[::1]:3/2"
        "?master_name=m&sentinel_username=su&sentinel_password=s",
        "sentinel://u:p%2C@h1:1/2;h2;[::1]:3?master_name=m&sentinel_username=su&sentinel_password=s",
    ],
)
def test_sentinels_are_read_in_our_spelling_and_in_celerys(url: str) -> None:
    found = redis_url.read(url)
    assert found.hosts == (("h1", 1), ("h2", 26379), ("::1", 3))
    assert (found.master_name, found.database, found.username, found.password) == (
        "m", 2, "u", "p,",
    )  # fmt: skip
    assert (found.sentinel_username, found.sentinel_password) == ("su", "s")


@pytest.mark.parametrize("reqs", ["required", "CERT_REQUIRED", "CERT_OPTIONAL", "none"])
def test_tls_is_spelt_as_redis_py_and_as_celery_do(reqs: str, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    found = redis_url.read(f"rediss://h?ssl_cert_reqs={reqs}&ssl_ca_certs={quote(str(ca))}")
    assert found.tls is not None
    options = found.tls.options()
    assert options["ssl_ca_certs"] == str(ca)
    assert options["ssl_cert_reqs"].name.lower().removeprefix("cert_") in reqs.lower()
    assert options["ssl_check_hostname"] is (reqs != "none")


def test_a_bare_rediss_url_checks_the_certificate() -> None:
    found = redis_url.read("rediss://h")
    assert found.tls is not None
    assert found.tls.options()["ssl_cert_reqs"].name == "CERT_REQUIRED"
    assert config.settings_for(found, "")["broker_use_ssl"]["ssl_check_hostname"] is True


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("redis://:secret/x@h", "%2F"),
        ("redis://:secret?x@h", "%3F"),
        ("redis://:secret@h:port", "65535"),
        ("redis://:secret@h/one", "number from 0, not 'one'"),
        ("redis://h?ssl_ca_certs=x", "rediss://"),
        ("redis://h?password=secret", "use db, virtual_host"),
        ("rediss://h?ssl_ca_certs=nowhere.pem", "there is no file nowhere.pem"),
        ("rediss://h?ssl_cert_reqs=maybe", "required, optional, none"),
        ("redis+socket://run/x.sock", "redis+socket:///path/to.sock"),
        ("sentinel://u:secret@h1", "?master_name=NAME"),
        ("sentinel:///0?master_name=m", "name the sentinels"),
        ("sentinel://u:secret@h;sentinel://u:secret2@i?master_name=m", "one name and password"),
        ("sentinel://h?master_name=m&ssl_cert_reqs=none", "ssl=true"),
        ("redis+cluster://u:secret@h", "no transport for Redis Cluster"),
        ("memcached://u:secret@h", "sentinel://"),
    ],
)
def test_a_bad_url_is_refused_with_its_remedy_and_without_its_password(
    url: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"\w") as raised:
        redis_url.read(url)
    assert remedy in str(raised.value)
    assert "secret" not in str(raised.value).replace("sentinel_password", "")
    assert "secret" not in redis_url.masked(url)


PASSWORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1)
FORMS = (
    "redis://u:{}@h/1",
    "rediss://:{}@h",
    "redis+socket://u:{}@/s",
    "sentinel://u:{}@h1,h2?master_name=m",
    "sentinel://u:{0}@h1;sentinel://u:{0}@h2/1?master_name=m",
    "sentinel://h1,h2?master_name=m&sentinel_password={}",
)


@given(PASSWORDS.map(lambda password: f"pw{password}"), st.sampled_from(FORMS))
def test_any_password_is_read_and_masked_once_it_is_percent_encoded(
    password: str, form: str
) -> None:
    url = form.format(quote(password, safe=""))
    found = redis_url.read(url)
    assert password in (found.password, found.sentinel_password)
    assert quote(password, safe="") not in redis_url.masked(url)
    assert password not in repr(found)
    assert password not in redis_url.masked(form.format(password)), "nor when it is not encoded"
    if found.password:
        assert (
            redis_url.read(
                found.celery_url().split(";")[0] + ("?master_name=m" if found.master_name else "")
            ).password
            == password
        )


def test_the_settings_command_shows_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for form in FORMS:
        monkeypatch.setenv("HEADGATE_REDIS_URL", form.format("geheim"))
        settings_command.main([], standalone_mode=False)
        shown = capsys.readouterr().out
        assert "geheim" not in shown
        assert "***" in shown


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"redis_version": "7.2.4", "role": "master"}, None),
        ({"redis_version": "6.2.0", "cluster_enabled": 0}, None),
        ({}, None),
        ({"redis_version": "6.0.20"}, "version 6.0.20"),
        ({"redis_version": "7.2.4", "cluster_enabled": 1}, "Cluster"),
        ({"role": "slave", "master_host": "m", "master_port": 6379}, "replica of m:6379"),
    ],
)
def test_an_unfit_server_is_recognised_by_its_info(
    facts: dict[str, object], reason: str | None
) -> None:
    found = redis_check.unfit(facts)
    assert (found is None) if reason is None else (found is not None and reason in found[0])
