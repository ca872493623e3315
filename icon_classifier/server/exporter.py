"""Voilà's exporter, with templates compiled once for all visitors instead of once for each.

Voilà makes an exporter, with a Jinja environment, for every page. Parsing the template again would
take much of the server's time for a page, all of it before the first byte.
"""

from __future__ import annotations

from types import CodeType

import jinja2
from jinja2.bccache import Bucket
from voila.exporter import VoilaExporter


class CodeCache(jinja2.BytecodeCache):
    """Keeps compiled templates in memory; a template that was edited is compiled anew."""

    def __init__(self) -> None:
        self._codes: dict[str, tuple[str, CodeType]] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Load the cached code, if the template's source is still the same."""
        checksum, code = self._codes.get(bucket.key, ("", None))
        if checksum == bucket.checksum:
            bucket.code = code

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Cache a template: there are as many as files, visitors cannot name others."""
        if bucket.code is not None:
            self._codes[bucket.key] = bucket.checksum, bucket.code


_CODES = CodeCache()


class PageExporter(VoilaExporter):  # type: ignore[misc]
    """Renders a notebook as Voilà's own exporter does."""

    def _create_environment(self) -> jinja2.Environment:
        environment: jinja2.Environment = super()._create_environment()
        environment.bytecode_cache = _CODES
        return environment
