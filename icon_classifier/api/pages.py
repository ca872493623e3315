"""The two plain pages of the API: to send a photo, and to read what the API can do.

No JavaScript, nothing from other hosts; all that is not ours is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from icon_classifier.api.problems import kinds, slug, status_of, title
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
.answer { font-size: 1.15rem; font-weight: 600; overflow-wrap: anywhere; }
.error { border-left: .25rem solid #c33; padding: .25rem .75rem; }
"""

_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""What goes with every page: nothing in it runs, and nothing is loaded from anywhere."""

Shown = tuple[str, Prediction | str]
"""Name of a photo, and its prediction or the words of its error."""


def upload_page(
    labels: Sequence[str], *, asks_key: bool, max_bytes: int, answers: Iterable[Shown] = ()
) -> str:
    """Write the page that sends photos, with the answers to those just sent."""
    key = '<label>API key <input type="password" name="key" required></label>' if asks_key else ""
    return _page(
        "Icon Classifier",
        f"""
<h1>What is in your photo?</h1>
<p>This model tells these apart: {escape(", ".join(labels))}.</p>
{"".join(_answer(name, answer) for name, answer in answers)}
<form method="post" action="/" enctype="multipart/form-data">
<label>Photos (each at most {max_bytes // 2**20} MB)
<input type="file" name="photo" accept="image/*" multiple required></label>
{key}
<button>Classify</button>
</form>
<p>For programs: <a href="/docs">what this API can do</a>.</p>""",
    )


def docs_page(description: dict[str, Any]) -> str:
    """Write out an OpenAPI description."""
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    problems = "".join(
        f'<tr id="{slug(kind)}"><td>{status_of(kind)}</td><td>{escape(title(kind))}</td>'
        f"<td>{escape(kind.words)}</td></tr>"
        for kind in kinds()
    )
    info = description["info"]
    return _page(
        f"{info['title']}: the API",
        f"""
<h1>{escape(info["title"])}: the API</h1>
<p>{escape(info["summary"])} For programs: <a href="/openapi.json">openapi.json</a>.</p>
<pre>curl --data-binary @photo.jpg http://HOST/classify
curl -F photo=@one.jpg -F photo=@two.jpg http://HOST/classify
curl -G --data-urlencode url=https://example.org/photo.jpg http://HOST/classify-url</pre>
{operations}
<h2>Problems</h2>
<p>Whatever goes wrong is told as <code>application/problem+json</code> (RFC 9457).</p>
<table><tr><th>Status</th><th>Meaning</th><th>Words for a person</th></tr>{problems}</table>
<h2>Shapes</h2>
<pre>{escape(json.dumps(description["components"]["schemas"], indent=1, ensure_ascii=False))}</pre>
<p><a href="/">Send a photo from here</a></p>""",
    )


def _answer(name: str, answer: Prediction | str) -> str:
    heading = f"<h2>{escape(name)}</h2>" if name else ""
    if isinstance(answer, str):
        return f'{heading}<p class="error" role="alert">{escape(answer)}</p>'
    sure = (
        ""
        if answer.known
        else "<p>Not sure: this does not look like what the model was trained on.</p>"
    )
    rows = "".join(
        f'<tr><td>{escape(label)}</td><td><meter value="{probability:.4f}">'
        f'</meter></td><td class="number">{probability:.4f}</td></tr>'
        for label, probability in answer.ranking
    )
    return f'{heading}<p class="answer">{escape(str(answer))}</p>{sure}<table>{rows}</table>'


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{escape(entry['name'])}</code>: {escape(entry.get('description', ''))}</li>"
        for entry in operation.get("parameters", ())
    )
    bodies = ", ".join(operation.get("requestBody", {}).get("content", ()))
    rows = "".join(
        f"<tr><td>{status}</td><td>{escape(answer['description'])}</td>"
        f"<td>{escape(', '.join(answer['content']))}</td></tr>"
        for status, answer in operation["responses"].items()
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
