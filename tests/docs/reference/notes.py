"""The notes of `notes.toml`: what the code does not say of its codes and fields."""

from __future__ import annotations

import tomllib
from pathlib import Path

_NOTES: dict[str, dict[str, str]] = tomllib.loads(
    Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
)

ERROR_CODES = _NOTES["error_codes"]
RESULT_FIELDS = _NOTES["result_fields"]
