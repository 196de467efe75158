"""How long a call may take: the model's own limit holds, and the setting where it has none."""

import pytest

from headgate.shared.catalog import catalog
from headgate.workers.stages.call import Call


@pytest.mark.parametrize("setting_s", [2, 120, 3600])
def test_the_models_own_timeout_holds_and_the_setting_is_for_models_without_one(
    setting_s: float,
) -> None:
    models = catalog.load(None)
    call = Call(models, lambda _: [], timeout_s=setting_s)
    reasoning, plain = models.model("gpt-5.4"), models.model("gpt-4o-mini")
    assert (reasoning.timeout_s, plain.timeout_s) == (300, None)
    assert call.timeout_s(reasoning) == 300
    assert call.timeout_s(plain) == setting_s
