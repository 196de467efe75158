"""What is given to a client instead of settings is refused by name, before anything is opened."""

from pathlib import Path
from typing import Any

import pytest

from headgate import AsyncClient, Client, WrongUse
from headgate.producer.client.arguments import checked_settings
from headgate.shared.settings import Settings


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("given", ["redis://h", {"redis_url": "redis://h"}, 5, Settings])
def test_anything_but_settings_is_refused_with_what_to_do(kind: Any, given: Any) -> None:
    with pytest.raises(WrongUse) as caught:
        kind(given)
    assert caught.value.field == "settings"
    assert "Settings(redis_url=..., database_url=...)" in caught.value.remedy
    assert "HEADGATE_REDIS_URL" in caught.value.remedy


def test_the_password_of_a_url_is_not_shown() -> None:
    with pytest.raises(WrongUse) as caught:
        checked_settings("redis://:s3cret@host/0")
    assert "s3cret" not in str(caught.value)
    assert "redis://" in str(caught.value)


def test_settings_and_nothing_are_taken_as_they_are(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert checked_settings(settings) is settings
    assert checked_settings(None) is None
