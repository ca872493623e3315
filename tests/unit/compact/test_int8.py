"""A quantized model answers like the exact one, or it is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from icon_classifier.cli.main import app
from icon_classifier.compact.int8 import _mean_error, _scales, quantize, quantize_with
from icon_classifier.conversion.convert import convert
from icon_classifier.errors import ConversionError
from icon_classifier.images import read_image_file
from icon_classifier.model.session import Model
from icon_classifier.system.torch_setup import one_thread
from tests.support import learners
from tests.support.models import model_bytes

COLOURS = {"blue": 2, "green": 1, "red": 0}


def draw(folder: Path, count: int = 20) -> Path:
    """Write noisy pictures of three colours, none of which the learner was trained on."""
    random = np.random.default_rng(1)
    for label, channel in COLOURS.items():
        (folder / label).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 160, (70 + 2 * i, 90, 3))
            pixels[..., channel] += 90
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def new_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("new") / "photos")


@pytest.fixture(scope="module")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a learner that knows the colours, with a bank of features as training stores it.

    Its body is random; its head takes the class whose mean of features is closest.
    """
    import torch

    torch.manual_seed(0)
    learn = learners.make_learner(photos, concat_pool=False, lin_ftrs=[], ps=0.0)
    body, head = learn.model.cpu().eval()
    paths = sorted(photos.rglob("*.png"))
    with one_thread(), torch.no_grad():
        features = head[:3](
            body(learn.dls.test_dl(paths, bs=len(paths), device="cpu").one_batch()[0])
        )
    means = features.reshape(len(COLOURS), -1, 256).mean(1)  # (18, 256) -> (3, 256)
    scale = 10 / (means - means.mean(0)).square().sum(1).mean()
    head[3] = torch.nn.Linear(256, 3)
    head[3].weight.data, head[3].bias.data = scale * means, -scale / 2 * means.square().sum(1)
    unsure = {"score": "knn", "threshold": 0.815, "k": 1, "root": True, "bank": features.tolist()}
    learn.icon_classifier = {"unsure": unsure, "temperature": 1.5}
    return learners.export(learn, tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def exact(trained: Path) -> Path:
    return convert(trained)


@pytest.fixture(scope="module")
def int8(exact: Path, new_photos: Path) -> bytes:
    return quantize(exact.read_bytes(), new_photos)


def answers(model: bytes, folder: Path) -> list[Any]:
    opened = Model(model)
    return [
        opened.predict(read_image_file(path), explain=True)
        for path in sorted(folder.rglob("*.png"))
    ]


def metadata(model: bytes) -> dict[str, Any]:
    return dict(Model(model).info.raw)


@pytest.mark.slow
def test_quantized_model_answers_like_the_exact_one(
    exact: Path, int8: bytes, tmp_path: Path
) -> None:
    others = draw(tmp_path / "others", 10)
    pairs = list(zip(answers(exact.read_bytes(), others), answers(int8, others), strict=True))
    assert {before.label for before, _ in pairs} == set(COLOURS)
    assert {before.known for before, _ in pairs} == {True, False}
    for before, after in pairs:
        assert after.label == before.label
        assert after.probability == pytest.approx(before.probability, abs=0.02)
        assert after.known == before.known
        assert np.corrcoef(before.evidence.ravel(), after.evidence.ravel())[0, 1] > 0.95


@pytest.mark.slow
def test_site_publishes_the_quantized_model_and_prints_what_it_changes(
    exact: Path, new_photos: Path, tmp_path: Path
) -> None:
    command = ["site", tmp_path / "out", "--int8", new_photos, "--model", exact.parent]
    result = CliRunner().invoke(app, [str(word) for word in command], catch_exceptions=False)
    assert "judged on:          30 photos; the exact model and this one:\n" in result.stdout
    [published] = (tmp_path / "out").glob("export-*.onnx")
    assert metadata(published.read_bytes())["int8"]["photos"] == 30


@pytest.mark.slow
def test_weights_of_the_body_are_integers_and_the_head_is_float(int8: bytes) -> None:
    model = onnx.load_from_string(int8)
    types = {each.name: each.data_type for each in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    small = [node for node in convolutions if node.input[1] not in made_by]
    assert small == convolutions[: len(small)]
    for node in convolutions[len(small) :]:
        weight = made_by[node.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert types[weight.input[0]] == onnx.TensorProto.INT8
    for node in model.graph.node:
        if node.op_type == "Gemm":
            assert types[node.input[1]] == onnx.TensorProto.FLOAT


@pytest.mark.slow
def test_pairs_of_products_cannot_overflow_16_bits(int8: bytes) -> None:
    """Without VNNI, processors add two products of an activation and a weight in 16 bits."""
    model = onnx.load_from_string(int8)
    arrays = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = {
        node.output[0]: arrays[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in arrays
    }
    rows = [
        np.moveaxis(weights[node.input[1]].astype(int), 1, -1).reshape(-1)
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in weights
        if weights[node.input[1]].shape[1] > 1
    ]
    assert rows
    assert {len(row) % 2 for row in rows} == {0}
    sums = np.concatenate([np.abs(row).reshape(-1, 2).sum(axis=1) for row in rows])
    assert sums.max() * 255 <= 2**15 - 1
    assert sums.max() >= 127  # more than 7 bits


@pytest.mark.parametrize(("group", "depthwise"), [(1, False), (4, False), (8, True)])
def test_rounded_weights_and_the_corrected_bias_change_no_mean(group: int, depthwise: bool) -> None:
    import torch

    random = np.random.default_rng(0)
    weight = random.standard_normal((16, 8 // group, 3, 3)).astype(np.float32)
    weight[0] = 0  # a channel that nothing feeds
    means = random.random(8, np.float32)
    scales = _scales(weight, depthwise=depthwise)
    steps = np.round(weight / scales[:, None, None, None])
    assert np.abs(steps).max() == 127 if depthwise else np.abs(steps).max() <= 127
    photo = torch.tensor(means)[None, :, None, None].expand(1, 8, 3, 3)
    exact, rounded = (
        torch.nn.functional.conv2d(photo, torch.tensor(each), groups=group).numpy().ravel()
        for each in (weight, (steps * scales[:, None, None, None]).astype(np.float32))
    )
    corrected = rounded + _mean_error(weight, scales, means, group)
    np.testing.assert_allclose(corrected, exact, atol=1e-5)
    assert np.abs(rounded - exact).max() > 1e-3


@pytest.mark.slow
def test_metadata_tell_what_was_calibrated_and_judged(exact: Path, int8: bytes) -> None:
    before, after = metadata(exact.read_bytes()), metadata(int8)
    settings = after.pop("int8")
    assert settings["photos"] == 30
    assert settings["judged"]["photos"] == 30
    assert settings["judged"]["same_label"] == 30
    assert settings["judged"]["errors"] == [0, 0]
    assert after["temperature"] == settings["temperature"]
    assert after["unsure"] == {"score": "knn", "threshold": settings["threshold"]}
    unchanged = before.keys() - {"temperature", "unsure"}
    assert {name: after[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert len(onnx.load_from_string(int8).metadata_props) == 1


@pytest.mark.slow
def test_the_same_ranges_give_the_same_file(exact: Path, int8: bytes) -> None:
    assert quantize_with(exact.read_bytes(), metadata(int8)["int8"]) == int8


@pytest.mark.slow
def test_settings_that_do_not_fit_are_refused(exact: Path, int8: bytes) -> None:
    settings = metadata(int8)["int8"]
    ranges = dict(list(settings["ranges"].items())[1:])
    for changes in ({"ranges": ranges}, {"ranges": None}, {"temperature": "warm"}):
        with pytest.raises(ConversionError, match="cannot be quantized"):
            quantize_with(exact.read_bytes(), settings | changes)


@pytest.mark.slow
def test_model_whose_labels_change_is_refused_and_nothing_is_written(
    trained: Path, new_photos: Path, tmp_path: Path
) -> None:
    """All photos are alike but for noise, and the classes are equally probable for them."""
    from fastai.vision.all import load_learner

    random = np.random.default_rng(2)
    alike = tmp_path / "alike"
    alike.mkdir()
    for i in range(60):
        pixels = random.integers(90, 110, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(alike / f"{i}.png")
    with learners.quiet():
        learn = load_learner(trained)
    model = Model(convert(trained, tmp_path / "exact.onnx").read_bytes())
    logits = []
    for path in alike.iterdir():
        found = dict(model.predict(read_image_file(path)).ranking)
        logits.append([1.5 * np.log(found[label]) for label in model.labels])
    bias = learn.model[1][-1].bias.data
    bias -= bias.new_tensor(np.mean(logits, 0))
    undecided = learners.export(learn, tmp_path)
    with pytest.raises(ConversionError, match=r"changes the labels of \d+ of 30 photos"):
        convert(undecided, int8=alike)
    assert not undecided.with_suffix(".onnx").exists()


@pytest.mark.slow
def test_model_stays_quantized_until_the_export_changes(
    trained: Path, new_photos: Path, tmp_path: Path
) -> None:
    export = Path(shutil.copy(trained, tmp_path))
    written = convert(export, int8=new_photos)
    settings = metadata(written.read_bytes())["int8"]
    assert metadata(convert(export).read_bytes())["int8"] == settings
    named = convert(export, names={"red": "rouge"})
    assert metadata(named.read_bytes())["int8"] == settings
    assert "int8" not in metadata(convert(export, int8="").read_bytes())
    assert "int8" not in metadata(convert(export).read_bytes())


@pytest.mark.slow
def test_learner_with_ranges_needs_no_photos(trained: Path, int8: bytes, tmp_path: Path) -> None:
    from fastai.vision.all import load_learner

    settings = metadata(int8)["int8"]
    for kept, expected in ((settings, settings), (settings | {"ranges": {}}, None), (True, None)):
        with learners.quiet():
            learn = load_learner(trained)
            learn.icon_classifier["int8"] = kept
            export = learners.export(learn, tmp_path)
        assert metadata(convert(export).read_bytes()).get("int8") == expected


def test_quantized_model_is_refused_with_what_to_do(int8: bytes, new_photos: Path) -> None:
    with pytest.raises(ConversionError, match=r"leave --int8 out, or run .* convert --int8 ''"):
        quantize(int8, new_photos)


def test_too_few_photos_are_refused(tmp_path: Path) -> None:
    folder = draw(tmp_path / "photos", 7)
    shutil.copytree(folder / "red", folder / "copies")
    shutil.rmtree(folder / "blue")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(ConversionError, match="at least 20 different photos, got 14"):
        quantize(model_bytes(), folder)
    with pytest.raises(ConversionError, match="which is none"):
        quantize(model_bytes(), tmp_path / "missing")


def test_network_of_another_compiler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="cannot be quantized"):
        quantize(model_bytes(), draw(tmp_path / "photos"))
