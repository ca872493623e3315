"""The API and folders of photos on a real Ray cluster of two workers on this machine."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import ray
from PIL import Image
from ray import serve

from icon_classifier.api import on_ray as api_on_ray
from icon_classifier.api.settings import PREFIX, ApiSettings
from icon_classifier.cli.on_ray import classify_on_ray, find_photos_anywhere
from icon_classifier.cli.predict import classify_files
from icon_classifier.errors import SettingsError
from icon_classifier.images import read_image
from icon_classifier.model.session import Model
from tests.support.models import write_model
from tests.support.pictures import encode, gradient
from tests.support.processes import run_on_terminal
from tests.support.servers import ROOT, free_port

# Ray's own code warns and leaves threads and sockets open.
pytestmark = pytest.mark.filterwarnings("ignore")

MAX_ATTEMPTS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of three colours and photos, one of them broken."""
    folder = tmp_path_factory.mktemp("scale")
    write_model(folder)
    photos = folder / "photos"
    (photos / "deep").mkdir(parents=True)
    for number in range(20):
        colour = ("red", "green", "blue")[number % 3]
        picture = Image.new("RGB", (20 + number, 30), colour)
        (photos / "deep" / f"{number:02}.png").write_bytes(encode(picture))
    (photos / "a::b.png").write_bytes(encode(Image.new("RGB", (20, 30), "red")))
    (photos / "broken.jpg").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Start Ray and yield its address."""
    for attempt in range(MAX_ATTEMPTS):
        try:
            ray.init(
                num_cpus=2,
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
            )
            break
        except RuntimeError:
            # Ray's own agent has 15 s to start, which no option changes. On a loaded machine a
            # second attempt succeeds, with the files in memory.
            ray.shutdown()
            if attempt == MAX_ATTEMPTS - 1:
                raise
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


@pytest.fixture(scope="class")
def address(cluster: str, folder: Path) -> Iterator[str]:
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    front = api_on_ray.build(ApiSettings(model=folder, rate=0, max_pixels=10**6), replicas=2)
    serve.run(front, name="api")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()  # its replicas occupy both cores, which the next tests need


def wait_for(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)  # between two checks of the condition


class TestServe:
    """The API on Ray Serve, with two replicas."""

    def test_answers_equal_those_of_one_process(self, address: str, folder: Path) -> None:
        model = Model.load(folder / "export.onnx")
        photo = encode(gradient(), "JPEG")
        expected = model.predict(read_image(photo))
        answer = httpx.post(address + "/classify", content=photo, timeout=60).json()
        assert answer["predictions"][0]["label"] == expected.label
        assert answer["predictions"][0]["probability"] == pytest.approx(
            expected.probability, abs=1e-5
        )
        assert answer["known"] is expected.known
        bad = httpx.post(address + "/classify", content=b"only text", timeout=60)
        assert (bad.status_code, bad.json()["type"]) == (415, "/docs#unsupported-image")
        assert httpx.get(address + "/healthz", timeout=60).json() == {"status": "ok", "pending": 0}

    def test_replicas_refuse_more_pixels_than_the_settings_allow(self, address: str) -> None:
        photo = encode(Image.new("RGB", (1001, 1000)))
        answer = httpx.post(address + "/classify", content=photo, timeout=60)
        assert (answer.status_code, answer.json()["type"]) == (413, "/docs#image-too-large")

    def test_killed_replica_loses_no_request(self, address: str) -> None:
        replicas = [
            process
            for process in psutil.process_iter(["cmdline"])
            if any("ServeReplica:api:Replica" in part for part in process.info["cmdline"] or [])
        ]
        assert len(replicas) == 2
        photo = encode(gradient(), "JPEG")
        statuses: list[int] = []
        stop = threading.Event()

        def send_photos() -> None:
            with httpx.Client(base_url=address, timeout=120) as client:
                while not stop.is_set():
                    statuses.append(client.post("/classify", content=photo).status_code)

        with ThreadPoolExecutor(4) as threads:
            clients = [threads.submit(send_photos) for _ in range(4)]
            try:
                wait_for(lambda: len(statuses) >= 20)
                replicas[0].kill()
                done = len(statuses)
                wait_for(lambda: len(statuses) >= done + 60)
            finally:
                stop.set()
            for client in clients:
                client.result()
        assert set(statuses) == {200}


def test_records_of_a_folder_equal_those_of_one_process(cluster: str, folder: Path) -> None:
    paths = list(find_photos_anywhere([str(folder / "photos")]))
    paths.append(str(folder / "none.jpg"))
    expected = classify_files(Model.load(folder / "export.onnx"), paths, threads=1)
    records = list(classify_on_ray(folder / "export.onnx", paths))
    assert [record["path"] for record in records] == paths
    for one, other in zip(expected, records, strict=True):
        assert one.keys() == other.keys()
        assert one.get("label") == other.get("label")
        assert one.get("probability") == pytest.approx(other.get("probability"), abs=1e-5)


def test_fsspec_addresses_are_found_and_classified(cluster: str, folder: Path) -> None:
    paths = list(find_photos_anywhere([f"file://{folder}/photos"]))
    assert len(paths) == 22
    assert all(path.startswith("file://") for path in paths)
    [record] = classify_on_ray(folder / "export.onnx", paths[-1:], top=1)
    assert record["path"] == paths[-1]
    assert len(record["ranking"]) == 1


@pytest.mark.parametrize("address", ["nowhere://photos", "github://photos"])
def test_fsspec_address_that_cannot_be_opened_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match=f"cannot look for photos at {address}: "):
        list(find_photos_anywhere([address]))


def test_command_shows_progress_on_a_terminal(cluster: str, folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    command = [sys.executable, "-m", "icon_classifier", "predict", str(folder / "photos"), "--ray"]
    command += ["--json", "-o", str(target), "--model", str(folder)]
    code, shown = run_on_terminal(command, os.environ | {"RAY_ADDRESS": cluster})
    assert code == 1, shown  # one of them is broken
    assert "22/22" in shown
    assert len([json.loads(line) for line in target.read_text().splitlines()]) == 22


def test_app_for_serve_run_is_created_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + "MODEL", str(folder))
    assert isinstance(api_on_ray.app, serve.Application)
