"""The error of a call whose caller may not make it."""

from __future__ import annotations

from typing import Literal

from headgate.shared.errors import HeadgateError

RefusalStatus = Literal[401, 403, 429]


class KeyRefused(HeadgateError):
    """The caller may not make this call. The text names no secret.

    `http_status`: 401 for no key or a wrong one, 403 for what the key does not allow, 429 where the
    caller has to slow down. `code`: what was wrong in one word. `retry_after_s`: with 429, the
    seconds until the next call may be made.
    """

    def __init__(
        self, http_status: RefusalStatus, code: str, message: str, retry_after_s: float = 0
    ) -> None:
        super().__init__(message)
        self.http_status: RefusalStatus = http_status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
