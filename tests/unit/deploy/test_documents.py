import re

import pytest

from headgate.shared.settings import Settings, variable
from tests import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", ["README.md", ".env.example"])
def test_every_setting_is_in(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    missing = [variable(field) for field in Settings.model_fields if variable(field) not in text]
    assert missing == []


def test_every_promise_of_the_readme_names_a_test_that_exists() -> None:
    promised = re.findall(r"`(promises/test_\w+\.py)::(test_\w+)`", README)
    assert len(promised) > 25
    for file, name in promised:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), name
