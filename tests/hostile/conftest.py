"""Fixtures of the suite against hostile visitors."""

from tests.unit.conftest import photos, tiny_export

__all__ = ["photos", "tiny_export"]
