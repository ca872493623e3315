"""What hostile visitors and failures do to the app; `make test-hostile` runs all of it."""

from __future__ import annotations

import pytest

LONG = pytest.mark.hostile
"""Marks what takes minutes: left out of `make test`."""
