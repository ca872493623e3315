"""The folder that ``icon-classifier site`` writes."""

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from PIL import ExifTags, Image

from icon_classifier.errors import ModelDamagedError, SettingsError
from icon_classifier.images import MAX_WHOLE_PIXELS, Limits, read_image
from icon_classifier.model.pipeline import MAX_PADDED_PIXELS
from icon_classifier.model.session import Model
from icon_classifier.page import texts
from icon_classifier.site.build import write_site
from tests.support.models import LABELS, model_bytes
from tests.support.pictures import encode, gradient
from tests.support.servers import NOTEBOOK, ROOT

MANIFEST = "manifest.webmanifest"
PLAIN_NAMES = {"index.html", "sw.js", MANIFEST, "LICENSES.txt"}
HASHED = re.compile(r"[a-z]+-([0-9a-f]{8})\.[a-z.]+")


class Elements(HTMLParser):
    """The elements of a page with their attributes, and the text of its configuration."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.config = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1] == (
            "script",
            {"id": "site-config", "type": "application/json"},
        ):
            self.config += data


def write_project(folder: Path) -> Path:
    """Write what a site is made of beside the model: a notebook and an example."""
    (folder / "examples").mkdir(parents=True)
    shutil.copy(ROOT / NOTEBOOK, folder)
    (folder / "examples" / "sea.png").write_bytes(encode(gradient()))
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of the model of three colours; not to be changed."""
    folder = tmp_path_factory.mktemp("site")
    write_site(folder / "site", write_project(folder / "project"), model_bytes())
    return folder / "site"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "site"


def addresses(site: Path) -> list[str]:
    """Return all that the page and its manifest refer to, without the configuration."""
    elements = [attributes for _, attributes in page_of(site).found]
    found = [each.get(name) for each in elements for name in ("src", "href", "action", "poster")]
    found += [each["content"] for each in elements if each.get("property") == "og:image"]
    manifest = json.loads((site / MANIFEST).read_text())
    found += [manifest["start_url"], manifest["scope"]]
    found += [icon["src"] for icon in manifest["icons"]]
    return [address for address in found if address is not None]


def page_of(site: Path) -> Elements:
    return Elements((site / "index.html").read_text())


def config_of(site: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(page_of(site).config)
    return config


def strings(value: object) -> Iterator[str]:
    """Yield every string in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


def contents(site: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in site.iterdir() if path.is_file()}


def kept(site: Path) -> tuple[list[str], list[str]]:
    """Return the lists of the service worker: what it takes, and what it keeps once it is there."""
    (found,) = re.findall(r'\{"shell": .*?\]\}', (site / "sw.js").read_text())
    lists = json.loads(found)
    return lists["shell"], lists["later"]


def alternatives(source: str, name: str) -> set[str]:
    """Return the strings that a type of the scripts allows."""
    (declared,) = re.findall(rf"type {name} =([^;]+);", source)
    return set(re.findall(r"'(\w+)'", declared))


def test_limits_of_a_photo_are_those_of_the_server(site: Path) -> None:
    limits = config_of(site)["limits"]
    pixels = {"max_whole_pixels": MAX_WHOLE_PIXELS, "max_padded_pixels": MAX_PADDED_PIXELS}
    assert limits == asdict(Limits()) | pixels
    (worker,) = site.glob("worker-*.js")
    assert all(f".{name}" in worker.read_text() for name in limits)


def test_names_have_the_hash_of_the_content(site: Path) -> None:
    files = contents(site)
    assert set(files) >= PLAIN_NAMES
    for name in set(files) - PLAIN_NAMES:
        found = HASHED.fullmatch(name)
        assert found
        assert hashlib.sha256(files[name]).hexdigest().startswith(found[1])


def test_every_file_that_the_page_names_is_there_and_no_other(site: Path) -> None:
    files, config = contents(site), config_of(site)
    named = {each for each in strings(config) if HASHED.fullmatch(each)}
    assert {*named, *addresses(site)} == {*files, "./"} - (PLAIN_NAMES - {MANIFEST})
    for file in (config["files"]["model"], config["files"]["runtime"], config["files"]["heif"]):
        data = files[file["name"]]
        assert file["bytes"] == len(data)
        assert file["sha256"] == hashlib.sha256(data).hexdigest()


def test_no_address_leaves_the_folder_of_the_site(site: Path) -> None:
    base = "https://you.example/repository/"
    shell, later = kept(site)
    for address in [*addresses(site), *shell, *later]:
        assert not re.match(r"[a-z]+:|/", address)
        assert urljoin(base, address).startswith(base)
    (style,) = site.glob("style-*.css")
    assert not re.findall(r"url\((?![\"']?data:)|@import", style.read_text())


def test_service_worker_knows_every_file(site: Path) -> None:
    shell, later = kept(site)
    assert {*shell, *later, *PLAIN_NAMES} == {*contents(site), "./"}
    heif = config_of(site)["files"]["heif"]
    assert set(later) == {heif["script"], heif["name"]}
    worker = (site / "sw.js").read_text()
    assert config_of(site)["version"] in worker
    assert not re.search("__FILES__|__VERSION__", worker)


@pytest.mark.parametrize(
    "change", [{"temperature": 2.0}, {"labels": ["red", "green", "turquoise"]}, {"date": "2027"}]
)
def test_another_model_is_another_version(
    site: Path, project: Path, out: Path, change: Any
) -> None:
    write_site(out, project, model_bytes(**change))
    assert config_of(out)["version"] != config_of(site)["version"]


def test_same_input_gives_the_same_files(site: Path, project: Path, out: Path) -> None:
    write_site(out, project, model_bytes())
    assert contents(out) == contents(site)


@pytest.mark.parametrize(
    "label",
    ["</script><script>alert(1)</script>", "{label}", "{0}{names}", "<!--", "a&amp;b", "'\""],
)
def test_labels_may_hold_anything(project: Path, out: Path, label: str) -> None:
    write_site(out, project, model_bytes(labels=[label, "a_b"]))

    config = config_of(out)
    assert config["model"]["labels"] == [label, "a_b"]
    assert config["model"]["shown"] == [label, "a b"]
    assert config["line"] == {**texts.LINES, "names": f"{label} or a b"}
    assert [tag for tag, _ in page_of(out).found].count("script") == 2
    assert json.loads((out / MANIFEST).read_text())["name"].lower() == (f"{label} or a b?".lower())


def test_page_says_what_voilas_page_says(site: Path) -> None:
    html, config = (site / "index.html").read_text(), config_of(site)
    assert "<h1>Red, green or blue?</h1>" in html
    assert "<p>Show it a photo, and it tells you what is in it.</p>" in html
    assert '<details class="ic-about">' in html
    assert "<title>Red, green or blue?</title>" in html
    assert config["drop"]["texts"].keys() == {*texts.DROP_TEXTS, "privacy"}
    assert config["answer"]["texts"] == texts.ANSWER_TEXTS
    assert config["texts"] == texts.SITE_TEXTS


def test_scripts_use_every_text_and_no_other(site: Path) -> None:
    web = ROOT / "web" / "src"
    scripts = [path for path in web.rglob("*.ts") if path.parent != web]
    source = "".join(path.read_text() for path in scripts)
    # What Python uses itself, and what comments name.
    used = {*re.findall(r"\btexts\.(\w+)", source), "privacy", "no_script"} - {"py", "line"}
    config = config_of(site)
    assert used | alternatives(source, "FailureReason") == config["texts"].keys()
    assert alternatives(source, "ProblemReason") == config["words"].keys()


def test_model_of_the_page_is_that_of_the_file(project: Path, out: Path) -> None:
    data = model_bytes(temperature=1.5, mean=[0.485, 0.456, 0.406])
    write_site(out, project, data)

    config, info = config_of(out), Model(data).info
    model = config["model"]
    assert (out / config["files"]["model"]["name"]).read_bytes() == data
    assert model["labels"] == LABELS
    assert model["transforms"] == info.pipeline.to_json()
    assert (model["temperature"], model["threshold"]) == (1.5, 2.0)
    assert model["mean"] == info.mean.tolist()  # float32, as the server computes with
    assert model["evidence"] is True


def test_policy_allows_no_other_host_and_no_inline_script(site: Path) -> None:
    page = page_of(site)
    (policy,) = (
        attributes["content"] or ""
        for _, attributes in page.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert {each for value in directives.values() for each in value.split()} == {
        *("'none'", "'self'", "'wasm-unsafe-eval'", "blob:", "data:"),
    }
    for tag, attributes in page.found:
        assert "style" not in attributes
        assert tag != "style"
        assert not [name for name in attributes if name.startswith("on")]
        assert tag != "script" or "src" in attributes or attributes["id"] == "site-config"


def test_example_is_published_without_its_metadata(project: Path, out: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 51.0, 29.0)
    photo = Image.new("RGB", (3000, 1000), "blue")
    photo.save(project / "examples" / "my_sea.jpg", exif=exif, comment=b"where we were")

    write_site(out, project, model_bytes())

    found = {example["name"]: example for example in config_of(out)["drop"]["examples"]}
    assert found.keys() == {"my sea", "sea"}
    data = (out / found["my sea"]["file"]).read_bytes()
    with Image.open(out / found["my sea"]["file"]) as image:
        assert image.size == (341, 1024)
        assert not image.getexif()
        assert "comment" not in image.info
    assert read_image(data).getpixel((5, 5))[2] > 240  # type: ignore[index]
    assert max(read_image(base64.b64decode(found["my sea"]["thumbnail"])).size) == 96


def test_icons_are_as_large_as_the_manifest_says(site: Path) -> None:
    svg, png = json.loads((site / MANIFEST).read_text())["icons"]
    assert (site / svg["src"]).read_bytes().startswith(b"<svg")
    with Image.open(site / png["src"]) as icon:
        assert png["sizes"] == "{}x{}".format(*icon.size) == "512x512"


def test_site_without_notebook_and_examples(tmp_path: Path, out: Path) -> None:
    write_site(out, tmp_path, model_bytes(unsure=None))

    config = config_of(out)
    assert config["drop"]["examples"] == []
    assert config["model"]["threshold"] is None
    assert "og:image" not in (out / "index.html").read_text()


def test_title_of_the_notebook_is_not_repeated(project: Path, out: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Icon Classifier\n", "\n", "Of *three* colours."]},
        {"cell_type": "markdown", "source": "## And more"},
        {"cell_type": "code", "source": "pass"},
        {"cell_type": "markdown", "source": "Later."},
    ]
    (project / NOTEBOOK).write_text(json.dumps({"cells": cells}))

    write_site(out, project, model_bytes())

    html = (out / "index.html").read_text()
    assert "<p>Of <em>three</em> colours.</p>" in html
    assert "And more" in html
    assert "Icon Classifier" not in html
    assert "Later." not in html


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [5]}'])
def test_notebook_that_is_none_is_refused(project: Path, out: Path, text: str) -> None:
    (project / NOTEBOOK).write_text(text)
    with pytest.raises(SettingsError, match="is not a notebook"):
        write_site(out, project, model_bytes())
    assert not out.exists()


def test_other_files_of_a_site_stay(project: Path, out: Path) -> None:
    write_site(out, project, model_bytes())
    (out / "README.md").write_text("sdk: static")
    (out / "photo-12345678.jpg").write_text("of the owner")
    (out / ".git").mkdir()
    old = contents(out)

    write_site(out, project, model_bytes(temperature=2.0))

    files = contents(out)
    assert files["README.md"] == b"sdk: static"
    assert files["photo-12345678.jpg"] == b"of the owner"
    assert (out / ".git").is_dir()
    assert [name.split("-")[0] for name in sorted(files)].count("export") == 1
    assert config_of(out)["files"]["model"]["name"] not in old


def test_empty_folder_and_one_of_git_become_a_site(project: Path, out: Path) -> None:
    (out / ".git").mkdir(parents=True)
    write_site(out, project, model_bytes())
    assert (out / "index.html").exists()


@pytest.mark.parametrize("name", ["notes.txt", "index.html"])
def test_folder_with_something_else_is_refused(project: Path, out: Path, name: str) -> None:
    out.mkdir()
    (out / name).write_text("<p>My own page</p>")

    with pytest.raises(SettingsError, match="expected a new folder"):
        write_site(out, project, model_bytes())

    assert contents(out) == {name: b"<p>My own page</p>"}


def test_file_is_refused(project: Path, out: Path) -> None:
    out.write_text("")
    with pytest.raises(SettingsError, match="got the file"):
        write_site(out, project, model_bytes())


def test_damaged_model_leaves_the_old_site(project: Path, out: Path) -> None:
    write_site(out, project, model_bytes())
    before = contents(out)
    with pytest.raises(ModelDamagedError):
        write_site(out, project, b"no model")
    assert contents(out) == before


def test_site_that_cannot_be_written_leaves_the_old_one_whole(project: Path, out: Path) -> None:
    write_site(out, project, model_bytes())
    before = contents(out)
    (out / "sw.js").unlink()
    (out / "sw.js" / "in the way").mkdir(parents=True)  # so that no file can take its place

    with pytest.raises(OSError, match=r"sw\.js"):
        write_site(out, project, model_bytes(temperature=2.0))

    after = contents(out)
    same = {name for name in before if after.get(name) == before[name]}
    assert set(before) - same <= {"sw.js", "manifest.webmanifest"}
    assert "index.html" in same
