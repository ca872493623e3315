"""Tests that the OpenAPI document matches the code."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from starlette.routing import Route
from starlette.testclient import TestClient

from icon_classifier.api.app import create_app
from icon_classifier.api.openapi import openapi_document
from icon_classifier.api.problems import client_errors, slug, status_code
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import FetchError
from icon_classifier.model.session import Model
from tests.support.models import LABELS, model_bytes
from tests.support.pictures import encode, gradient

PHOTO = encode(gradient(), "JPEG")


class Fetcher:
    """Finds a photo at every second URL; test_fetch tests the real one."""

    async def fetch(self, url, reserve):
        if len(url) % 2 or len(url) > 2048:
            raise FetchError(f"there is no {url}")
        return PHOTO


app = create_app(Model(model_bytes()), ApiSettings(rate=0), fetcher=Fetcher())

# A photo among the generated bodies, so that predictions are checked as well as problems.
for media_type in ("application/octet-stream", "image/*"):
    schemathesis.openapi.media_type(media_type, st.sampled_from([PHOTO, PHOTO[:99], b"text", b""]))

schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.fixture(scope="module", autouse=True)
def client():
    with TestClient(app) as client:
        yield client


@schema.parametrize()
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_response_matches_the_document(case):
    # No schema can describe which bytes are a photo or which URL has one; and in a form a number
    # in place of a text is a text.
    excluded = [positive_data_acceptance]
    if case.media_type == "multipart/form-data":
        excluded.append(negative_data_rejection)
    case.call_and_validate(excluded_checks=excluded)


def test_document_describes_every_route_and_no_other(client):
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route) and route.include_in_schema
        for method in route.methods - {"HEAD"}
    }
    described = client.get("/openapi.json").json()["paths"]
    assert {(path, method) for path, methods in described.items() for method in methods} == routes


@pytest.mark.parametrize("count", [1, 2])
def test_predictions_match_their_schema(client, count):
    document = client.get("/openapi.json").json()
    name = "Answer" if count == 1 else "Answers"
    validator = Draft202012Validator(document | {"$ref": f"#/components/schemas/{name}"})
    validator.check_schema(validator.schema)
    files = [("photo", ("a.jpg", PHOTO)), ("photo", ("b.jpg", b"text"))][:count]
    validator.validate(client.post("/classify", files=files).json())


@pytest.mark.parametrize("kind", list(client_errors()))
def test_document_describes_the_status_of_every_error(client, kind):
    document = client.get("/openapi.json").json()
    statuses = document["paths"]["/classify"]["post"]["responses"]
    assert str(status_code(kind)) in statuses
    assert slug(kind) == slug(kind).lower()


def test_document_asks_for_keys_only_if_there_are_any():
    def secured(settings):
        paths = openapi_document(LABELS, settings)["paths"]
        return {
            path for path, methods in paths.items() for m in methods.values() if "security" in m
        }

    assert secured(ApiSettings()) == set()
    assert secured(ApiSettings(keys=("one",))) == {"/classify", "/classify-url"}
