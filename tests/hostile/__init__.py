"""What strangers and bad days do to the app; `make test-hostile` runs all of it."""

from __future__ import annotations

import os

import pytest

LONG = pytest.mark.skipif("HOSTILE" not in os.environ, reason="runs in `make test-hostile`")
"""Marks what takes long: left out of `make test`."""
