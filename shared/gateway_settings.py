"""The settings of the gateway and of its clients, which are a part of all settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from headgate.shared.setting_types import HttpUrl, Networks, Origins


class GatewaySettings(BaseModel):
    """The settings of `headgate gateway`, and of clients that ask one. `Settings` has them, too."""

    gateway_open: bool = Field(
        default=False,
        description="1: the gateway serves everyone on this machine without keys, on a loopback "
        "address only (default: callers need keys).",
    )
    gateway_wait_s: Annotated[float, Field(allow_inf_nan=False, gt=0, le=86_400)] = Field(
        default=600,
        description="How many seconds a call waits for its answer at the gateway; it is also the "
        "deadline of its job (default: 600).",
    )
    gateway_body_mb: Annotated[int, Field(ge=1, le=64)] = Field(
        default=10,
        description="The maximum size in megabytes of the body of one call to the gateway "
        "(default: 10).",
    )
    gateway_body_s: Annotated[float, Field(allow_inf_nan=False, gt=0, le=3600)] = Field(
        default=60,
        description="How many seconds the headers and the body of a call may each take to arrive "
        "at the gateway (default: 60).",
    )
    gateway_streams: Annotated[int, Field(ge=1)] = Field(
        default=1000,
        description="The maximum number of open streams of one key in one gateway process "
        "(default: 1000).",
    )
    gateway_rpm_per_address: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="How many calls a minute one address may make; 0 is no limit (default: 0).",
    )
    gateway_proxies: Networks = Field(
        default="",
        description="The addresses of proxies whose X-Forwarded-For is believed, with commas "
        "between several (default: none).",
    )
    gateway_origins: Origins = Field(
        default="",
        description="The origins of web pages that may call the gateway, with commas between "
        "several (default: none).",
    )
    gateway_tls_cert: Path | None = Field(
        default=None,
        description="The file with the certificate of the gateway, and its chain (default: plain "
        "HTTP).",
    )
    gateway_tls_key: Path | None = Field(
        default=None,
        description="The file with the private key of that certificate (default: it is in the "
        "certificate's file).",
    )
    base_url: HttpUrl | None = Field(
        default=None,
        description="The address of a gateway that clients ask in place of Redis and the database, "
        "such as https://llm.example.com (default: none).",
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="The key that clients give to the gateway at HEADGATE_BASE_URL (default: "
        "none).",
    )
