"""Fixtures of the suite against hostile visitors."""
