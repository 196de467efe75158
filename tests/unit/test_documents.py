from pathlib import Path

import pytest

from shared.settings import Settings, variable

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("document", ["README.md", ".env.example"])
def test_every_setting_is_in(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    missing = [variable(field) for field in Settings.model_fields if variable(field) not in text]
    assert missing == []
