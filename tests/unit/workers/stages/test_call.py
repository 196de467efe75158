"""How long a call may take: the model's own limit holds, and the setting where it has none."""

import pytest

from headgate.shared.catalog import catalog
from headgate.shared.catalog.schema import ProviderConfig
from headgate.shared.errors import SettingError
from headgate.workers.stages.call import Call, Upstream


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


async def test_a_provider_that_a_new_catalog_makes_unusable_fails_its_jobs_with_the_reason() -> (
    None
):
    def make(_: ProviderConfig) -> list[Upstream]:
        raise SettingError("OPENAI_API_KEY", "***", "copy the key again")

    models = catalog.load(None)
    call = Call(models, make, timeout_s=1)
    model = models.model("gpt-4o-mini")
    assert await call.upstream(model) is None
    error = call.no_key(model)
    assert (error.code, error.message) == (
        "authentication", "OPENAI_API_KEY: '***': copy the key again",
    )  # fmt: skip
