"""The two HTML pages of the API: one to send photos, one with its documentation.

They use no JavaScript and load nothing from other hosts; all text from outside is escaped. Their
links are relative, so that they hold under any prefix of a proxy.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from icon_classifier.api.problems import client_errors, slug, status_code, title
from icon_classifier.errors import megabytes
from icon_classifier.model.session import Prediction

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 44rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
form { display: grid; gap: .75rem; justify-items: start; }
input, button { font: inherit; max-width: 100%; }
button { padding: .5rem 1.25rem; min-height: 2.75rem; cursor: pointer; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid #8886;
  overflow-wrap: anywhere; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
meter { width: 100%; min-width: 4rem; }
pre { overflow-x: auto; padding: .75rem; background: #8882; border-radius: .25rem; }
.result { font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
.error { border-left: .25rem solid #c33; padding: .25rem .75rem; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Response headers of every page: no script may run and nothing may be loaded."""

PhotoResult = tuple[str, Prediction | str]
"""Name of a photo, and its prediction or the sentence of its error."""


def upload_page(
    labels: Sequence[str], *, needs_key: bool, max_bytes: int, results: Iterable[PhotoResult] = ()
) -> str:
    """Return the page that sends photos, with the results of those just sent."""
    key = '<label>API key <input type="password" name="key" required></label>' if needs_key else ""
    return _page(
        "Icon Classifier",
        f"""
<h1>What is in your photo?</h1>
<p>It is classified as one of: {escape(", ".join(labels))}.</p>
{"".join(_result(name, result) for name, result in results)}
<form method="post" action="./" enctype="multipart/form-data">
<label>Photos (up to {megabytes(max_bytes)} each)
<input type="file" name="photo" accept="image/*" multiple required></label>
{key}
<button>Classify</button>
</form>
<p>For programs: <a href="docs">the documentation of the API</a>.</p>""",
    )


def docs_page(document: dict[str, Any]) -> str:
    """Return the page that shows an OpenAPI document."""
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    problems = "".join(
        f'<tr id="{slug(kind)}"><td>{status_code(kind)}</td><td>{escape(title(kind))}</td>'
        f"<td>{escape(kind.words)}</td></tr>"
        for kind in client_errors()
    )
    info = document["info"]
    return _page(
        f"{info['title']}: the API",
        f"""
<h1>{escape(info["title"])}: the API</h1>
<p>{escape(info["summary"])} Machine-readable: <a href="openapi.json">openapi.json</a>.</p>
<pre>curl --data-binary @photo.jpg http://HOST/classify
curl -F photo=@one.jpg -F photo=@two.jpg http://HOST/classify
curl -G --data-urlencode url=https://example.org/photo.jpg http://HOST/classify-url</pre>
{operations}
<h2>Errors</h2>
<p>An error is returned as <code>application/problem+json</code> (RFC 9457). Its
<code>detail</code> is a sentence for a person.</p>
<table><tr><th>Status</th><th>Meaning</th><th>Detail</th></tr>{problems}</table>
<h2>Schemas</h2>
<pre>{escape(json.dumps(document["components"]["schemas"], indent=1, ensure_ascii=False))}</pre>
<p><a href="./">Send a photo</a></p>""",
    )


def _result(name: str, result: Prediction | str) -> str:
    heading = f"<h2>{escape(name)}</h2>" if name else ""
    if isinstance(result, str):
        return f'{heading}<p class="error" role="alert">{escape(result)}</p>'
    warning = (
        ""
        if result.known
        else "<p>Not sure: this photo does not look like those that the model was trained on.</p>"
    )
    rows = "".join(
        f'<tr><td>{escape(label)}</td><td><meter value="{probability:.4f}">'
        f'</meter></td><td class="number">{probability:.4f}</td></tr>'
        for label, probability in result.ranking
    )
    return f'{heading}<p class="result">{escape(str(result))}</p>{warning}<table>{rows}</table>'


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(entry['name'])}</code>: {escape(entry.get('description', ''))}</li>"
        for entry in operation.get("parameters", ())
    )
    bodies = ", ".join(operation.get("requestBody", {}).get("content", ()))
    rows = "".join(
        f"<tr><td>{status}</td><td>{escape(response['description'])}</td>"
        f"<td>{escape(', '.join(response['content']))}</td></tr>"
        for status, response in operation["responses"].items()
    )
    return f"""
<h2><code>{method.upper()} {escape(path)}</code></h2>
<p>{escape(operation["summary"])} {escape(operation.get("description", ""))}</p>
{f"<ul>{parameters}</ul>" if parameters else ""}
{f"<p>Body: {escape(bodies)}</p>" if bodies else ""}
<table><tr><th>Status</th><th>Meaning</th><th>Type</th></tr>{rows}</table>"""


def _page(title: str, body: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<main>{body}
</main>
</html>
"""
