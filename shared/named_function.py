"""Loads an operator's own function that a setting names as module:function."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from headgate.shared.errors import SettingError, place_of


def named_function(variable: str, chosen: str, takes: str) -> Callable[..., Any]:
    """Return the function; raise SettingError if it cannot be imported or called.

    `takes`: what the function is called with, in words, for the error.
    """
    module, _, name = chosen.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except Exception as error:
        remedy = f"it cannot be imported ({place_of(error)}: {error}); "
        remedy += "name a function on Python's path, as module:function"
        raise SettingError(variable, chosen, remedy) from error
    if not callable(found):
        remedy = f"it is {type(found).__name__}; name a function of {takes}"
        raise SettingError(variable, chosen, remedy)
    return found  # type: ignore[no-any-return]  # its answers are checked when it is called
