"""The file `.env` in the current folder: settings beside the environment."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from headgate.shared.errors import SettingError

DOTENV = ".env"


def read() -> dict[str, str]:
    """Return the variables of the file; raise SettingError that names a line that is none."""
    try:
        with suppress(FileNotFoundError), Path(DOTENV).open(encoding="utf-8") as file:
            for one in parse_stream(file):
                if one.error:  # the line itself may hold a secret
                    blank = len(one.original.string) - len(one.original.string.lstrip("\r\n"))
                    number = one.original.line + blank
                    remedy = "cannot be read; write NAME=value, with both quotes or none"
                    raise SettingError(DOTENV, f"line {number}", remedy)
        return {k: v for k, v in dotenv_values(DOTENV).items() if v is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(DOTENV, str(error), "must be a readable file in UTF-8") from None
