"""The tests; `make test` runs them."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the checkout."""

pytest.register_assert_rewrite("tests.support")  # so that its asserts tell the values, too
