"""Masks API keys in texts that a vendor or a proxy sends back, however they are spelled.

Our own key is found as it is, in another case, percent-encoded, in JSON escapes, in base64, and
split over lines. Keys of others are found by the prefixes that vendors give them, also
percent-encoded or in base64.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from functools import lru_cache

MASK = "***"

SHORTEST = 4
"""Shorter secrets are no keys, and would mask words of the message."""

_SHORTEST_BASE64 = 8

_KEYS = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|csk|pplx|hf|r8|nvapi|fw)(?:[-_]|%2[Dd]|%5[Ff])[\w.*%-]{6,}"
    r"|\bAIza[\w-]{10,}|(?<=Bearer )\S+|(?i:(?<=key provided: )\S+)"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")

_BREAK = r"(?:\\[nrt]|%0[aAdD]|[\s\"'\\]){0,40}"
"""What may stand between two characters of a split key: blanks, quotes, escaped line ends.

The bound keeps the search linear in the length of the text.
"""


_HEX_ID = re.compile(r"(?:req_|msg_|chatcmpl-)?[0-9a-f-]{8,64}")
"""Most request ids. They hide no vendor's key: base64 of `sk-` and the like has other letters."""

_HEX = re.compile(r"[0-9a-f-]*", re.IGNORECASE)


def masked_keys(text: str, secret: str) -> str:
    """Return the text with `***` for our key `secret` and for what looks like a vendor's key."""
    if _HEX_ID.fullmatch(text) and not _fits_in_hex(secret):
        return text  # every answer has such an id: the search below would take 2 % of a job's CPU
    if len(secret) >= SHORTEST:
        text = _spellings(secret).sub(MASK, text)
    return _KEYS.sub(MASK, _BASE64.sub(_without_hidden_keys, text))


@lru_cache(maxsize=64)
def _spellings(secret: str) -> re.Pattern[str]:
    """Return a pattern of the secret in all its spellings."""
    found = [_spelled(secret)]
    for blanks, core in enumerate(_base64_cores(secret)):
        if len(core) >= _SHORTEST_BASE64:
            before = r"[\w+/-]{0,2}" if blanks else ""
            found.append(rf"{before}{_spelled(core)}[\w+/-]{{0,3}}={{0,2}}")
    return re.compile("|".join(found), re.IGNORECASE)


def _base64_cores(secret: str) -> list[str]:
    """Return what base64 of a text that holds the secret always holds, for its three offsets.

    A longer text, such as `user:KEY`, holds the key at one of three offsets. The characters at the
    ends depend on the neighbours too, so they are left out.
    """
    cores = []
    for blanks in range(3):
        padded = b"\0" * blanks + secret.encode()
        encoded = base64.b64encode(padded).decode()
        cores.append(encoded[math.ceil(blanks * 8 / 6) : len(padded) * 8 // 6])
    return cores


@lru_cache(maxsize=64)
def _fits_in_hex(secret: str) -> bool:
    """Return whether some spelling of the secret has only hexadecimal digits and hyphens."""
    return any(_HEX.fullmatch(text) for text in (secret, *_base64_cores(secret)))


def _spelled(text: str) -> str:
    return _BREAK.join(map(_character, text))


def _character(char: str) -> str:
    digits = f"{ord(char):02x}"
    plain = {"+": "[+-]", "/": "[/_]"}.get(char, re.escape(char))  # base64 for URLs
    return rf"(?:{plain}|%(?:25)*{digits}|\\u00{digits})"


def _without_hidden_keys(found: re.Match[str]) -> str:
    """Return the word, or the mask if it is the base64 of a text with a vendor's key."""
    word = found[0].rstrip("=").replace("-", "+").replace("_", "/")
    for start in range(4):
        part = word[start:]
        try:
            text = base64.b64decode(part[: len(part) // 4 * 4]).decode("latin-1")
        except binascii.Error:
            continue
        if _KEYS.search(text):
            return MASK
    return found[0]
