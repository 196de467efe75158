"""`headgate keys`: create, list, show, rotate and revoke keys, without Redis."""

from pathlib import Path

import pytest

from headgate.producer.callers.keys import SECRET
from tests.support.command import Ended, headgate


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An installation whose Redis is away: keys are in the database alone."""
    return {"HEADGATE_REDIS_URL": "redis://127.0.0.1:9/0", "HEADGATE_HOME": str(tmp_path / "home")}


def done(env: dict[str, str], *arguments: str) -> Ended:
    ended = headgate(("keys", *arguments), env)
    assert ended.code == 0, ended
    return ended


def test_a_new_key_is_alone_on_standard_output(env: dict[str, str]) -> None:
    ended = done(env, "create", "web", "--tenant", "acme", "--any-user", "--scope", "chat")
    secret = ended.out.removesuffix("\n")
    assert SECRET.fullmatch(secret)
    assert "not shown again" in ended.err
    [listed] = [done(env, "list", "--json").document]
    assert (listed["name"], listed["tenant"], listed["scopes"]) == ("web", "acme", ["chat"])
    shown = done(env, "show", listed["id"])
    assert secret not in shown.out + done(env, "list").out
    files = [file for file in Path(env["HEADGATE_HOME"]).rglob("*") if file.is_file()]
    assert files
    assert all(secret.encode() not in file.read_bytes() for file in files)


def test_a_key_carries_all_that_it_was_given(env: dict[str, str]) -> None:
    made = done(
        env, "create", "ci", "--user", "u1", "--any-tenant", "--tier", "free",
        "--model", "openai/gpt-4o-mini", "--model", "auto", "--rpm", "5", "--tpm", "100",
        "--budget", "2.50/month", "--origin", "https://app.example.com", "--expires", "90d",
        "--json",
    ).document  # fmt: skip
    assert SECRET.fullmatch(made.pop("key"))
    assert made == done(env, "show", made["id"], "--json").document
    assert made["models"] == ["auto", "gpt-4o-mini"]
    assert (made["budget_usd"], made["budget_period"]) == ("2.50", "month")
    assert (made["rpm"], made["tpm"], made["user"], made["state"]) == (5, 100, "u1", "good")
    assert made["expires_at"] > made["created_at"]


def test_a_key_is_rotated_and_revoked(env: dict[str, str]) -> None:
    made = done(env, "create", "web", "--json").document
    rotated = done(env, "rotate", made["id"], "--grace", "1h", "--json").document
    assert rotated["key"] != made["key"]
    assert rotated["previous_until"] is not None
    assert "has ended" in done(env, "rotate", made["id"], "--grace", "0").err
    assert "revoked" in done(env, "revoke", made["id"]).out
    ended = headgate(("keys", "rotate", made["id"]), env)
    assert (ended.code, ended.out) == (2, "")
    assert "the key is revoked" in ended.err


def test_wrong_options_are_refused_by_name(env: dict[str, str]) -> None:
    for arguments, fault in (
        (("web", "--budget", "5"), "--budget: '5'"),
        (("web", "--model", "gpt-4o-minni"), "--model: 'gpt-4o-minni'"),
        (("web", "--tier", "gold"), "--tier: 'gold'"),
        (("web", "--origin", "app.example.com/"), "--origin: 'app.example.com/'"),
        (("web", "--user", "u", "--any-user"), "--user: 'u'"),
        (("web", "--expires", "soon"), "--expires: 'soon'"),
        (("",), "NAME: ''"),
        (("web", "--scope", "all"), "Invalid value for '--scope'"),
    ):
        ended = headgate(("keys", "create", *arguments), env)
        assert (ended.code, ended.out) == (2, ""), (arguments, ended)
        assert fault in ended.err, (arguments, ended.err)
    assert "headgate keys create" in done(env, "list").err
