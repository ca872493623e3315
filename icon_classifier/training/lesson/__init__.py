"""The training of a first lesson, and what its loss curves show."""
