"""`headgate webhooks`: URLs and secrets of tenants, without Redis, and what is refused."""

from pathlib import Path

import pytest

from tests.support.command import Ended, headgate

URL = "https://hooks.example.com/llm?key=s3cret"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An installation whose Redis is away: webhooks are in the database alone."""
    return {"HEADGATE_REDIS_URL": "redis://127.0.0.1:9/0", "HEADGATE_HOME": str(tmp_path / "home")}


def done(env: dict[str, str], *arguments: str) -> Ended:
    ended = headgate(("webhooks", *arguments), env)
    assert ended.code == 0, ended
    return ended


def test_a_tenant_has_a_url_and_a_secret_that_is_rotated(env: dict[str, str]) -> None:
    made = done(env, "set", URL, "--tenant", "acme", "--event", "batch.*", "--json").document
    assert (made["state"], made["events"], made["url"]) == (
        "on", ["batch.*"], "https://hooks.example.com/llm?..."
    )  # fmt: skip
    first = done(env, "secret", "show", "--tenant", "acme").out.strip()
    assert first.startswith("whsec_")
    second = done(env, "secret", "rotate", "--tenant", "acme", "--json").document["secret"]
    assert done(env, "secret", "show", "--tenant", "acme").out.strip() == second != first
    [listed] = [done(env, "tenants", "--json").document]
    assert listed["previous_until"] is not None
    assert first not in str(listed)
    done(env, "unset", "--tenant", "acme")
    assert done(env, "tenants", "--json").document["state"] == "off"
    assert done(env, "list", "--json").out == ""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["set", "http://hooks.example.com/"], "use https"),
        (["set", "https://192.168.0.1/"], "HEADGATE_WEBHOOK_ALLOW"),
        (["set", "nonsense"], "https://hooks.example.com/jobs"),
        (["set", URL, "--event", "job.done"], "job.succeeded"),
        (["unset"], "it has no webhook"),
        (["secret", "show"], "secret create"),
        (["secret", "rotate"], "secret create"),
        (["show", "evt_1"], "no such event"),
        (["resend", "evt_1"], "no such event"),
        (["resend"], "give ids of events"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(
    arguments: list[str], word: str, env: dict[str, str]
) -> None:
    ended = headgate(("webhooks", *arguments), env)
    assert (ended.code, ended.out) == (2, ""), ended
    assert word in ended.err


def test_a_bad_list_of_allowed_targets_stops_every_command(env: dict[str, str]) -> None:
    ended = headgate(("settings",), {**env, "HEADGATE_WEBHOOK_ALLOW": "10.0.0.0/99"})
    assert ended.code == 2
    assert "HEADGATE_WEBHOOK_ALLOW" in ended.err
    assert "hooks.internal,10.0.0.0/8" in ended.err
    again = headgate(("webhooks", "secret", "create"), env)
    assert again.code == 0
    assert headgate(("webhooks", "secret", "create"), env).code == 2, "there is one already"
