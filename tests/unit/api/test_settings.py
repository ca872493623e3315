from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from icon_classifier.api.settings import PREFIX, ApiSettings
from icon_classifier.errors import SettingsError


def test_other_variables_leave_the_defaults():
    settings = ApiSettings.from_environ({"PATH": "/bin", "RATE": "3"})
    assert settings == ApiSettings()
    assert settings.limits.max_bytes == 25 * 2**20
    assert settings.fetch_redirects == 3


def test_values_are_parsed_by_type():
    settings = ApiSettings.from_environ(
        {
            PREFIX + "MODEL": "some/folder",
            PREFIX + "RATE": "60",
            PREFIX + "FETCH_SECONDS": "2.5",
            PREFIX + "KEYS": "one, two,,",
        }
    )
    assert settings.model == Path("some/folder")
    assert settings.rate == 60
    assert settings.fetch_seconds == 2.5
    assert settings.keys == ("one", "two")


@pytest.mark.parametrize("name", [field.name for field in fields(ApiSettings)])
def test_empty_variable_leaves_the_default(name):
    assert ApiSettings.from_environ({PREFIX + name.upper(): ""}) == ApiSettings()


def test_all_requests_may_be_as_large_as_one():
    assert ApiSettings(max_bytes=7, max_body=9, max_memory=9).max_memory == 9


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUEUE", "many"),
        ("QUEUE", "-1"),
        ("QUEUE", "0"),
        ("QUEUE", "8"),  # smaller than one request may be
        ("RATE", "15"),  # likewise
        ("MAX_MEMORY", "52428799"),  # likewise
        ("MAX_BYTES", "268435457"),  # a photo that is fetched
        ("FETCH_SECONDS", "-0.1"),
        ("ANSWER_SECONDS", "nan"),
        ("NO_SUCH_OPTION", "1"),
    ],
)
def test_invalid_value_is_refused(name, value):
    with pytest.raises(SettingsError):
        ApiSettings.from_environ({PREFIX + name: value})


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=f"expected .*{PREFIX}RATE.*, got {PREFIX}REATE"):
        ApiSettings.from_environ({PREFIX + "REATE": "1"})
