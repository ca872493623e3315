"""The OpenAPI 3.1 document of the JSON API, for one model and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from icon_classifier import __version__
from icon_classifier.api.settings import ApiSettings
from icon_classifier.errors import megabytes


def openapi_document(labels: Sequence[str], settings: ApiSettings) -> dict[str, Any]:
    """Return the OpenAPI document.

    Parameters
    ----------
    labels : sequence of str
        The classes of the model.
    settings : ApiSettings
        The limits, which the descriptions name.
    """
    secured: dict[str, Any] = {"security": [{"key": []}, {"bearer": []}]} if settings.keys else {}
    photo = {"type": "string", "contentMediaType": "application/octet-stream"}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Icon Classifier",
            "version": __version__,
            "summary": f"Classifies photos as one of: {', '.join(labels)}.",
        },
        "paths": {
            "/": {
                "get": {
                    "operationId": "page",
                    "summary": "A page that sends photos from a browser.",
                    "responses": {"200": _html("The page.")},
                },
                "post": {
                    "operationId": "pageAnswer",
                    "summary": "The target of that page; responds with a page.",
                    "requestBody": {
                        "required": True,
                        "content": {"multipart/form-data": {"schema": _form(photo)}},
                    },
                    "responses": {
                        "200": _html("The result, or what is wrong with the photo."),
                        **_errors(
                            ("400", "401", "408", "413", "415", "422", "429", "503"), html=True
                        ),
                    },
                },
            },
            "/classify": {
                "post": {
                    "operationId": "classify",
                    "summary": "Classify one photo or several.",
                    "description": f"Up to {settings.max_files} photos of up to "
                    f"{megabytes(settings.max_bytes)} each. One photo returns an Answer; several "
                    "return Answers, with a Problem in place of each photo that cannot be used.",
                    "requestBody": {
                        "required": True,
                        "content": {
                            "multipart/form-data": {"schema": _form(photo)},
                            "application/octet-stream": {"schema": photo},
                            "image/*": {"schema": photo},
                        },
                    },
                    "responses": {
                        "200": _json(
                            "The predictions.",
                            {"oneOf": [_ref("Answer"), _ref("Answers")]},
                        ),
                        **_errors(("400", "401", "408", "413", "415", "422", "429", "503")),
                    },
                    **secured,
                }
            },
            "/classify-url": {
                "get": {
                    "operationId": "classifyUrl",
                    "summary": "Classify the photo at a public URL.",
                    "parameters": [
                        {
                            "name": "url",
                            "in": "query",
                            "required": True,
                            "description": "http or https, without user name and password. It must "
                            f"load within {settings.fetch_seconds:g} s and with at most "
                            f"{settings.fetch_redirects} redirects.",
                            "schema": {"type": "string", "minLength": 1, "maxLength": 2048},
                        }
                    ],
                    "responses": {
                        "200": _json("The prediction.", _ref("Answer")),
                        **_errors(("400", "401", "413", "415", "422", "429", "503")),
                    },
                    **secured,
                }
            },
            "/labels": {
                "get": {
                    "operationId": "labels",
                    "summary": "The classes, in the order of the network's outputs.",
                    "responses": {"200": _json("The classes.", _ref("Labels"))},
                }
            },
            "/healthz": {
                "get": {
                    "operationId": "health",
                    "summary": "Health check for load balancers.",
                    "responses": {
                        "200": _json("The API is up.", _ref("Health")),
                        **_errors(("503",)),
                    },
                }
            },
            "/openapi.json": {
                "get": {
                    "operationId": "openapi",
                    "summary": "This documentation as an OpenAPI document.",
                    "responses": {"200": _json("An OpenAPI 3.1 document.", {"type": "object"})},
                }
            },
            "/docs": {
                "get": {
                    "operationId": "docs",
                    "summary": "This documentation as a page.",
                    "responses": {"200": _html("The page.")},
                }
            },
        },
        "components": {
            "schemas": _schemas(labels),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _schemas(labels: Sequence[str]) -> dict[str, Any]:
    predictions = {
        "type": "array",
        "description": "Every class, the most probable first.",
        "minItems": len(labels),
        "maxItems": len(labels),
        "items": _object(
            label={"enum": list(labels)},
            probability={"type": "number", "minimum": 0, "maximum": 1},
        ),
    }
    known = {
        "type": "boolean",
        "description": "Whether the photo looks like those that the model was trained on. "
        "If false, the labels mean little.",
    }
    name = {"type": "string", "description": "The file name that the client sent."}
    return {
        "Answer": _object(predictions=predictions, known=known, model=_ref("Model")),
        "Answers": _object(
            photos={
                "type": "array",
                "items": {
                    "oneOf": [
                        _object(name=name, predictions=predictions, known=known),
                        _object(name=name, error=_ref("Problem")),
                    ]
                },
            },
            model=_ref("Model"),
        ),
        "Model": _object(
            recipe={"type": ["string", "null"]},
            compiled={"type": "string", "description": "When, in ISO 8601 and UTC."},
            export_sha256={"type": "string", "description": "SHA-256 of its export.pkl."},
        ),
        "Labels": _object(labels={"type": "array", "items": {"enum": list(labels)}}),
        "Health": _object(status={"const": "ok"}, pending={"type": "integer", "minimum": 0}),
        "Problem": _object(
            type={"type": "string", "format": "uri-reference"},
            title={"type": "string"},
            status={"type": "integer", "minimum": 400, "maximum": 599},
            detail={"type": "string", "description": "A sentence for a person."},
        ),
    }


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _form(photo: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "photo": {"type": "array", "items": photo, "minItems": 1},
            "key": {"type": "string", "description": "The API key, used by the page."},
        },
        "required": ["photo"],
    }


def _json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _html(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"text/html": {"schema": {"type": "string"}}}}


_ERRORS = {
    "400": "The request has no photo or cannot be read.",
    "401": "The API key is missing or wrong.",
    "408": "The photo took too long to arrive.",
    "413": "Too many bytes, pixels or photos.",
    "415": "Not a picture of a supported format.",
    "422": "The photo is damaged, empty or too small, or cannot be fetched.",
    "429": "Too many photos from one client.",
    "503": "Too many photos from all clients, or none can be classified at the moment.",
}


def _errors(statuses: Sequence[str], *, html: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/problem+json": {"schema": _ref("Problem")}}
    if html:
        content = {"text/html": {"schema": {"type": "string"}}}
    retry = {"Retry-After": {"schema": {"type": "integer"}, "description": "In seconds."}}
    return {
        status: {
            "description": _ERRORS[status],
            "content": content,
            **({"headers": retry} if status in ("429", "503") else {}),
        }
        for status in statuses
    }
