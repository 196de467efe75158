"""The settings of webhooks, which are a part of all settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from headgate.shared.webhook_target import AllowedTargets


def _allowed(text: str) -> str:
    AllowedTargets.read(text)
    return text


class WebhookSettings(BaseModel):
    """The settings of webhooks, for producers and workers. `Settings` has them, too."""

    webhook_allow: Annotated[str, AfterValidator(_allowed)] = Field(
        default="",
        description="Host names, addresses and networks that webhooks may reach besides public "
        "addresses, also by http, with commas between several (default: none).",
    )

    @property
    def webhook_targets(self) -> AllowedTargets:
        """What webhooks may reach besides public addresses."""
        return AllowedTargets.read(self.webhook_allow)
