from __future__ import annotations

import asyncio
import contextlib
import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from PIL import Image
from starlette.testclient import TestClient

from icon_classifier.api import app as api
from icon_classifier.api.settings import PREFIX, ApiSettings
from icon_classifier.errors import DamagedImageError, FetchError
from icon_classifier.images import read_image
from icon_classifier.model.session import Model
from tests.support.models import LABELS, model_bytes, write_model
from tests.support.pictures import encode, gradient

PHOTO = encode(gradient(), "JPEG")


class Fetcher:
    """Finds a photo at one URL and nothing elsewhere."""

    async def fetch(self, url, reserve):
        if url != "https://example.org/photo.jpg":
            raise FetchError(f"there is no {url}")
        return PHOTO


@pytest.fixture(scope="module")
def model():
    return Model(model_bytes())


@pytest.fixture
def connect(model):
    """Connect a client to an app with these settings."""
    clients = []

    def make(**options):
        settings = ApiSettings(**{"threads": 1} | options)
        app = api.create_app(model, settings, fetcher=Fetcher())
        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def client(model):
    """A client of one app for all tests, as each app starts processes."""
    app = api.create_app(model, ApiSettings(rate=0), fetcher=Fetcher())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def is_problem(response: httpx2.Response, status: int) -> bool:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json().keys() == {"type", "title", "status", "detail"}
    assert response.json()["status"] == response.status_code
    return response.status_code == status


def is_prediction(response: httpx2.Response, model: Model) -> bool:
    expected = model.predict(read_image(PHOTO))
    assert response.status_code == 200, response.text
    body = response.json()
    assert body.keys() == {"predictions", "known", "model"}
    assert [entry["label"] for entry in body["predictions"]] == [
        label for label, _ in expected.ranking
    ]
    for entry, (_, probability) in zip(body["predictions"], expected.ranking, strict=True):
        assert entry["probability"] == pytest.approx(probability, abs=1e-6)
    assert body["model"]["recipe"] == "colours"
    return body["known"] is expected.known


@pytest.mark.parametrize(
    "headers", [{}, {"Content-Type": "image/jpeg"}, {"Content-Type": "text/plain"}]
)
def test_raw_body_is_classified_whatever_its_type(client, model, headers):
    assert is_prediction(client.post("/classify", content=PHOTO, headers=headers), model)


def test_form_with_one_file_is_classified(client, model):
    assert is_prediction(client.post("/classify", files={"photo": PHOTO}), model)


def test_form_with_several_files_returns_a_result_for_each(client):
    files = [
        ("photo", ("red.png", encode(Image.new("RGB", (20, 20), "red")))),
        ("photo", ("text.jpg", b"only text")),
        ("other", ("blue.png", encode(Image.new("RGB", (20, 20), "blue")))),
    ]
    body = client.post("/classify", files=files).json()
    red, text, blue = body["photos"]
    assert (red["name"], red["predictions"][0]["label"], red["known"]) == ("red.png", "red", True)
    assert blue["predictions"][0]["label"] == "blue"
    assert text.keys() == {"name", "error"}
    assert text["error"]["status"] == 415
    assert body["model"]["export_sha256"] == "0" * 64


def test_url_is_classified(client, model):
    url = "https://example.org/photo.jpg"
    assert is_prediction(client.get("/classify-url", params={"url": url}), model)


@pytest.mark.parametrize(("query", "status"), [("", 400), ("?url=", 400), ("?url=http://a/", 422)])
def test_bad_url_is_a_problem(client, query, status):
    assert is_problem(client.get("/classify-url" + query), status)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"only text", 415),
        (PHOTO[: len(PHOTO) // 2], 422),
        (encode(Image.new("RGB", (4, 400))), 422),
        (encode(Image.new("1", (8000, 8000))), 413),
    ],
)
def test_bad_photo_is_a_problem_that_the_documentation_describes(client, body, status):
    response = client.post("/classify", content=body)
    assert is_problem(response, status)
    assert response.json()["type"].startswith("/docs#")
    assert f'id="{response.json()["type"][6:]}"' in client.get("/docs").text


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"", "multipart/form-data; boundary=x"),
        (b"nonsense", "multipart/form-data; boundary=x"),
        (b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n', None),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"; filename=""\r\n\r\n\r\n--x--\r\n',
            None,
        ),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nb\r\n--x--\r\n", None),
    ],
)
def test_bad_form_is_a_problem(client, content, kind):
    headers = {"Content-Type": kind or "multipart/form-data; boundary=x"}
    assert is_problem(client.post("/classify", content=content, headers=headers), 400)


@pytest.mark.parametrize(("count", "size"), [(9, 1), (1, 4097)])
def test_form_of_many_or_long_fields_is_a_problem(client, count, size):
    files = {"photo": PHOTO}
    fields = {f"field {number}": "x" * 4096 for number in range(8)}
    assert client.post("/classify", files=files, data=fields).status_code == 200
    fields = {f"field {number}": "x" * size for number in range(count)}
    assert is_problem(client.post("/classify", files=files, data=fields), 400)


def test_more_files_than_allowed_are_refused(connect):
    client = connect(max_files=3, queue=3)
    files = [("photo", ("a.jpg", PHOTO))] * 4
    assert client.post("/classify", files=files[:3]).status_code == 200
    for count in (4, 5, 20):
        assert is_problem(client.post("/classify", files=files[:1] * count), 413)
    empty = b'--x\r\nContent-Disposition: form-data; name="a"; filename=""\r\n\r\n\r\n' * 4
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert is_problem(client.post("/classify", content=empty + b"--x--\r\n", headers=headers), 413)


@pytest.mark.parametrize("size", [1001, 1500, 5000])
def test_body_larger_than_allowed_is_refused(connect, size):
    client = connect(max_body=1000)
    assert is_problem(client.post("/classify", content=b"x" * size), 413)
    assert is_problem(client.post("/classify", files={"photo": b"x" * size}), 413)
    response = client.post("/classify", content=iter([b"x"] * size))  # sends no Content-Length
    assert is_problem(response, 413)
    assert response.headers["connection"] == "close"


def test_error_on_the_page_has_the_headers_of_the_same_error_as_json(connect):
    client = connect(max_body=1000, keys=("one",))
    for photo, status in ((b"x", 401), (b"x" * 1001, 413)):
        page = client.post("/", files={"photo": photo})
        api = client.post("/classify", files={"photo": photo}, headers={"X-API-Key": "one"})
        assert page.status_code == status
        assert page.headers.get("connection") == ("close" if status == 413 else None)
        assert page.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
        assert api.headers.get("connection") == page.headers.get("connection")


def test_photo_larger_than_allowed_is_refused(connect):
    client = connect(max_bytes=len(PHOTO) - 1)
    assert is_problem(client.post("/classify", content=PHOTO), 413)


class Gate:
    """A classifier whose photos wait until the gate is opened."""

    stalled_seconds = 0.0

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.received = 0

    async def classify(self, photos, client=""):
        self.received += len(photos)
        while not self.opened.is_set():
            await asyncio.sleep(0.001)
        return [DamagedImageError("expected nothing of this classifier")] * len(photos)

    async def close(self):
        pass


@contextlib.contextmanager
def waiting_photos(model, *clients, fetcher=None, **options):
    """Connect a client to an app in which a photo of each of these addresses waits."""
    gate = Gate()
    settings = ApiSettings(**{"rate": 0, "proxies": 1, "max_files": 1, **options})
    app = api.create_app(
        model, settings, fetcher=fetcher or Fetcher(), make_classifier=lambda: gate
    )
    with TestClient(app) as client, ThreadPoolExecutor() as threads:
        for number, address in enumerate(clients, 1):
            threads.submit(post_from, client, address)
            while client.get("/healthz").json()["pending"] < number:
                pass
        yield client, gate
        gate.opened.set()


def post_from(client, address):
    return client.post("/classify", content=PHOTO, headers={"X-Forwarded-For": address})


def test_full_queue_refuses_a_photo(model):
    with waiting_photos(model, "1.1.1.1", "2.2.2.2", queue=2) as (client, _):
        response = post_from(client, "3.3.3.3")
        assert is_problem(response, 503)
        assert int(response.headers["retry-after"]) > 0
        assert client.get("/healthz").json() == {"status": "ok", "pending": 2}


def test_one_client_cannot_fill_the_queue(model):
    with waiting_photos(model, *["1.1.1.1"] * 6, queue=8) as (client, gate):
        assert is_problem(post_from(client, "1.1.1.1"), 503)
        assert is_problem(post_from(client, "::ffff:1.1.1.1"), 503)
        assert gate.received == 6
        gate.opened.set()
        assert is_problem(post_from(client, "2.2.2.2"), 422)


def test_each_photo_of_a_form_takes_a_place_in_the_queue(model):
    with waiting_photos(model, "1.1.1.1", max_files=2, queue=2) as (client, gate):
        files = [("file", ("a", PHOTO)), ("file", ("b", PHOTO))]
        headers = {"X-Forwarded-For": "2.2.2.2"}
        assert is_problem(client.post("/classify", files=files, headers=headers), 503)
        assert gate.received == 1


def test_memory_of_all_requests_is_limited(model):
    size = len(PHOTO)
    limits = {"max_bytes": size, "max_body": size, "max_memory": 2 * size}
    with waiting_photos(model, "1.1.1.1", "2.2.2.2", **limits) as (client, _):
        response = post_from(client, "3.3.3.3")
        assert is_problem(response, 503)
        assert int(response.headers["retry-after"]) > 0


def test_one_client_cannot_take_all_memory(model):
    size = len(PHOTO)
    with waiting_photos(
        model, *["1.1.1.1"] * 2, max_bytes=size, max_body=size, max_memory=3 * size
    ) as (client, gate):
        assert is_problem(post_from(client, "1.1.1.1"), 503)
        assert gate.received == 2
        gate.opened.set()
        assert is_problem(post_from(client, "2.2.2.2"), 422)


def test_one_client_cannot_take_the_memory_that_a_download_may_need(model):
    class LargeFetcher:
        async def fetch(self, url, reserve):
            reserve(3 * size)
            raise FetchError("the memory was there")

    size = len(PHOTO)
    limits = {"max_bytes": 3 * size, "max_body": size, "max_memory": 4 * size}
    with waiting_photos(model, "1.1.1.1", fetcher=LargeFetcher(), **limits) as (client, _):
        assert is_problem(client.get("/classify-url?url=http://a/"), 422)


def test_photo_that_takes_too_long_is_answered_and_leaves_the_queue(model):
    with waiting_photos(model, queue=8, answer_seconds=0.01) as (client, _):
        assert is_problem(post_from(client, "1.1.1.1"), 503)
        assert client.get("/healthz").json()["pending"] == 0


def test_health_fails_when_no_photo_is_finished(model):
    with waiting_photos(model) as (client, gate):
        gate.stalled_seconds = 61.0
        response = client.get("/healthz")
        assert is_problem(response, 503)
        described = client.get("/openapi.json").json()["paths"]["/healthz"]["get"]["responses"]
        assert described.keys() == {"200", "503"}
        assert "restart" in response.json()["detail"]


def test_slow_downloads_of_one_client_leave_some_for_others(model):
    class SlowFetcher(Fetcher):
        def __init__(self):
            self.started = 0
            self.opened = threading.Event()

        async def fetch(self, url, reserve):
            if "slow" in url:
                self.started += 1
                while not self.opened.is_set():
                    await asyncio.sleep(0.001)
            return await super().fetch("https://example.org/photo.jpg", reserve)

    def fetch_from(address, url):
        headers = {"X-Forwarded-For": address}
        return client.get("/classify-url", params={"url": url}, headers=headers)

    fetcher = SlowFetcher()
    settings = ApiSettings(rate=0, proxies=1, fetch_parallel=4)
    with (
        TestClient(api.create_app(model, settings, fetcher=fetcher)) as client,
        ThreadPoolExecutor() as threads,
    ):
        slow = [threads.submit(fetch_from, "1.1.1.1", "http://slow/") for _ in range(3)]
        while fetcher.started < 3:
            pass
        assert is_problem(fetch_from("1.1.1.1", "http://slow/"), 503)
        assert is_prediction(fetch_from("2.2.2.2", "http://quick/"), model)
        fetcher.opened.set()
        assert [future.result().status_code for future in slow] == [200] * 3


@pytest.mark.parametrize("path", ["/docs", "/classify-url?url=http://a/", "/healthz"])
def test_slash_at_the_end_redirects_without_naming_a_host(client, path):
    name, mark, query = path.partition("?")
    host = {"Host": "evil.example"}
    response = client.get(f"{name}/{mark}{query}", headers=host, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (308, f"..{path}")
    followed = client.get(f"{name}/{mark}{query}")
    assert (followed.status_code, followed.content) == (
        client.get(path).status_code,
        client.get(path).content,
    )


def test_every_link_keeps_the_prefix_and_scheme_of_a_proxy(model):
    app = api.create_app(model, ApiSettings(rate=0))
    with TestClient(app, base_url="https://site.example", root_path="/icons") as client:
        pages = {path: client.get(f"/icons{path}") for path in ("/", "/docs")}
        found = set()
        for page in pages.values():
            for link in re.findall(r'(?:href|action)="([^"#]+)"', page.text):
                found.add(str(page.url.join(link)))
        assert found == {f"https://site.example/icons/{x}" for x in ("", "docs", "openapi.json")}
        assert {client.get(url).status_code for url in found} == {200}
        document = client.get("/icons/openapi.json").json()
        assert document["servers"] == [{"url": "/icons"}]
        redirect = client.get("/icons/labels/")
        assert str(redirect.url) == "https://site.example/icons/labels"
        assert redirect.json() == {"labels": LABELS}
        assert is_problem(client.get("/icons/nothing"), 404)
        assert "; /icons/docs shows how" in client.get("/icons/classify").json()["detail"]
        refused = client.post("/icons/classify", content=b"only text")
        assert refused.json()["type"] == "/icons/docs#unsupported-image"


def test_labels_and_health_are_returned(client):
    assert client.get("/labels").json() == {"labels": LABELS}
    assert client.get("/healthz").json() == {"status": "ok", "pending": 0}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/classify", 405), ("DELETE", "/", 405)],
)
def test_unknown_path_or_method_is_a_problem(client, method, path, status):
    assert is_problem(client.request(method, path), status)


def test_wrong_method_and_json_are_told_what_to_send(client):
    assert "with POST; /docs shows how" in client.get("/classify").json()["detail"]
    response = client.post("/classify", json={"image": "aGk="})
    assert is_problem(response, 415)
    assert "send the photo itself as the body" in response.json()["detail"]


def test_crash_reveals_no_details(client, monkeypatch):
    def crash(self, upload):
        raise RuntimeError("secret")

    monkeypatch.setattr(Model, "predict_arrays", crash)
    response = client.post("/classify", content=PHOTO)
    assert is_problem(response, 500)
    assert "secret" not in response.text


class TestKeys:
    """Tests of API keys."""

    @pytest.fixture(scope="class")
    @classmethod
    def client(cls, model):
        app = api.create_app(model, ApiSettings(rate=0, keys=("one", "two")), fetcher=Fetcher())
        with TestClient(app) as client:
            yield client

    @pytest.mark.parametrize(
        "headers",
        [{"X-API-Key": "one"}, {"X-API-Key": "two"}, {"Authorization": "Bearer two"}],
    )
    def test_request_with_a_key_is_accepted(self, client, model, headers):
        assert is_prediction(client.post("/classify", content=PHOTO, headers=headers), model)

    @pytest.mark.parametrize(
        "headers",
        [{}, {"X-API-Key": "three"}, {"X-API-Key": ""}, {"Authorization": "Basic one"}],
    )
    def test_request_without_a_valid_key_is_refused(self, client, headers):
        response = client.post("/classify", content=PHOTO, headers=headers)
        assert is_problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
        assert is_problem(client.get("/classify-url?url=http://a/", headers=headers), 401)

    def test_pages_and_metadata_need_no_key(self, client):
        for path in ("/", "/labels", "/healthz", "/openapi.json", "/docs"):
            assert client.get(path).status_code == 200

    def test_page_sends_the_key_as_a_form_field(self, client):
        assert 'name="key"' in client.get("/").text
        assert client.post("/", files={"photo": PHOTO}).status_code == 401
        good = client.post("/", files={"photo": PHOTO}, data={"key": "two"})
        assert good.status_code == 200
        assert "Prediction: " in good.text


class TestRate:
    """Tests of the limit for each client."""

    def test_rate_limit_refuses_the_third_request(self, connect):
        client = connect(rate=2, max_files=2)
        assert [client.post("/classify", content=PHOTO).status_code for _ in range(2)] == [200, 200]
        response = client.post("/classify", content=PHOTO)
        assert is_problem(response, 429)
        assert 0 < int(response.headers["retry-after"]) <= 30
        assert client.get("/healthz").status_code == 200
        assert client.post("/", files={"photo": PHOTO}).headers["retry-after"]

    def test_rate_limit_counts_each_photo_of_a_form(self, connect):
        client = connect(rate=3, max_files=3)
        files = [("photo", ("a.jpg", PHOTO))] * 3
        assert client.post("/classify", files=files).status_code == 200
        assert is_problem(client.post("/classify", files=files), 429)

    def test_rate_limit_uses_the_forwarded_address_only_behind_a_proxy(self, connect):
        for proxies, expected in ((0, 429), (1, 200)):
            client = connect(rate=1, max_files=1, proxies=proxies)
            answers = [
                client.post(
                    "/classify", content=PHOTO, headers={"X-Forwarded-For": f"1.2.3.{host}"}
                )
                for host in range(2)
            ]
            assert [answer.status_code for answer in answers] == [200, expected]


def test_cors_is_off_by_default(client, connect):
    headers = {"Origin": "https://site.example"}
    assert "access-control-allow-origin" not in client.get("/labels", headers=headers).headers
    allowed = connect(cors_origins=("https://site.example",))
    answer = allowed.get("/labels", headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://site.example"
    other = allowed.get("/labels", headers={"Origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers


class TestPages:
    """Tests of the HTML pages."""

    def test_page_has_a_form_and_no_script(self, client):
        response = client.get("/")
        assert response.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in response.headers["content-security-policy"]
        assert '<form method="post" action="./" enctype="multipart/form-data">' in response.text
        assert "<script" not in response.text

    def test_page_shows_the_prediction(self, client, model):
        response = client.post("/", files={"photo": ("a.jpg", PHOTO)})
        assert str(model.predict(read_image(PHOTO))) in response.text

    def test_page_shows_an_error(self, client):
        response = client.post("/", files={"photo": ("a.jpg", b"only text")})
        assert "not a picture that can be read" in response.text
        assert response.status_code == 415
        assert client.post("/", files={"photo": ("", b"")}).status_code == 400

    def test_page_shows_an_error_beside_a_prediction(self, client):
        files = [("photo", ("good.jpg", PHOTO)), ("photo", ("bad.jpg", b"only text"))]
        response = client.post("/", files=files)
        assert response.status_code == 200
        assert "Prediction: " in response.text
        assert "not a picture that can be read" in response.text

    def test_page_escapes_the_file_name(self, client):
        text = client.post("/", files={"photo": ("<b>&.jpg", PHOTO)}).text
        assert "<b>" not in text
        assert "&lt;b&gt;&amp;.jpg" in text

    def test_documentation_lists_every_path(self, client):
        text = client.get("/docs").text
        for path in client.get("/openapi.json").json()["paths"]:
            assert f"<code>GET {path}</code>" in text or f"<code>POST {path}</code>" in text


def test_app_is_created_from_the_environment(tmp_path, monkeypatch):
    write_model(tmp_path)
    monkeypatch.setenv(PREFIX + "MODEL", str(tmp_path))
    with TestClient(api.app) as client:
        assert client.get("/labels").json() == {"labels": LABELS}


def test_module_has_no_other_lazy_attribute():
    with pytest.raises(AttributeError):
        api.application  # noqa: B018


def test_animated_gif_is_one_photo(client):
    file = io.BytesIO()
    frames = [Image.new("P", (50, 50), shade) for shade in range(5)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    assert client.post("/classify", content=file.getvalue()).status_code == 200
