"""The scores have their textbook values; evidence is the head on single cells."""

from __future__ import annotations

import base64

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from icon_classifier.conversion.graph import SCORES, Graph, Score, to_onnx
from icon_classifier.conversion.network import AdaptiveConcatPool2d, Flatten
from icon_classifier.errors import UnsupportedLearnerError

RANDOM = np.random.default_rng(0)
BANK = RANDOM.normal(size=(7, 10))
MEANS = RANDOM.normal(size=(3, 10))
ROOT = RANDOM.normal(size=(10, 10))
PRECISION = ROOT @ ROOT.T
UNSURE = {
    "energy": {"score": "energy"},
    "max_logit": {"score": "max_logit"},
    "max_probability": {"score": "max_probability"},
    "knn": {"score": "knn", "k": 2, "bank": BANK.tolist()},
    "mahalanobis": {
        "score": "mahalanobis",
        "means": MEANS.tolist(),
        "precision": PRECISION.tolist(),
    },
}
TEMPERATURE = 1.7


def expected(name: str, logits: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Compute a score by its definition, in float64."""
    powers = np.exp(logits / TEMPERATURE)
    if name == "energy":
        return TEMPERATURE * np.log(powers.sum(1))
    if name == "max_logit":
        return logits.max(1)
    if name == "max_probability":
        return (powers / powers.sum(1, keepdims=True)).max(1)
    if name == "knn":
        lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(BANK, axis=1)
        return np.sort(features @ BANK.T / lengths, axis=1)[:, -2]
    distances = [
        [(row - mean) @ PRECISION @ (row - mean) for mean in MEANS]
        for row in features.astype(float)
    ]
    return -np.min(distances, axis=1)


def network(*, concat: bool = True) -> nn.Sequential:
    """Return a small body and head, as vision_learner builds them."""
    torch.manual_seed(0)
    pool: nn.Module = nn.AdaptiveAvgPool2d(1)
    if concat:
        pool = AdaptiveConcatPool2d()
        pool.ap, pool.mp = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)
    flatten = Flatten()
    flatten.full = False
    body = nn.Sequential(nn.Conv2d(3, 5 if concat else 10, 3, 2, 1), nn.ReLU())
    head = nn.Sequential(pool, flatten, nn.BatchNorm1d(10), nn.Dropout(0.5), nn.Linear(10, 3))
    for parameter in (*body.parameters(), *head.parameters()):
        nn.init.normal_(parameter)
    return nn.Sequential(body, head).eval()


SAMPLE = torch.randn(4, 3, 12, 16, generator=torch.Generator().manual_seed(1))


def run(graph: Graph, batch: torch.Tensor, *names: str) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(to_onnx(graph.eval(), SAMPLE, graph.output_names))
    results: list[np.ndarray] = session.run(list(names), {"image": batch.numpy()})
    return results


def test_every_score_is_tested():
    assert sorted(UNSURE) == sorted(SCORES)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("concat", [True, False])
def test_a_score_has_its_textbook_value(name, concat):
    net = network(concat=concat)
    graph = Graph(net, Score(UNSURE[name], TEMPERATURE), SAMPLE)
    with torch.inference_mode():
        features = net[1][:2](net[0](SAMPLE)).numpy()
        logits = net(SAMPLE).numpy()
    for batch in (1, 4):
        actual, score = run(graph, SAMPLE[:batch], "logits", "score")
        np.testing.assert_allclose(actual, logits[:batch], rtol=1e-4, atol=1e-4)
        assert score.shape == (batch,)
        textbook = expected(name, logits, features)[:batch]
        np.testing.assert_allclose(score, textbook, rtol=1e-3, atol=1e-4)


def test_roots_and_rows_of_bytes_make_a_bank():
    net = network()
    rows = [base64.b64encode(bytes([1, 0, 0, 0, 0, 0, 0, 0, 0, 254])).decode()]  # 254 is -2
    unsure = {"score": "knn", "k": 1, "root": True, "bank": rows}
    features = torch.zeros(2, 10)
    features[0, 0], features[0, 9] = 1.0, -4.0  # its roots are the row
    features[1, 0], features[1, 9] = 1.0, 4.0
    score = Score(unsure, 1.0)(torch.zeros(2, 3), features).numpy()
    np.testing.assert_allclose(score, [1.0, (1 - 4) / 5], atol=1e-6)
    with torch.inference_mode():
        expected = Score(unsure, 1.0)(net(SAMPLE), net[1][:2](net[0](SAMPLE))).numpy()
    (found,) = run(Graph(net, Score(unsure, 1.0), SAMPLE), SAMPLE, "score")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_energy_is_the_default():
    assert Score(None, 1.0).name == "energy"


def test_evidence_is_the_head_on_each_cell():
    net = network()
    (evidence,) = run(Graph(net, Score(None, 1.0), SAMPLE), SAMPLE, "evidence")
    assert evidence.shape == (4, 3, 6, 8)
    with torch.inference_mode():
        maps = net[0](SAMPLE)
        cell = net[1](maps[:, :, 2:3, 5:6]).numpy()
    np.testing.assert_allclose(evidence[:, :, 2, 5], cell, rtol=1e-4, atol=1e-4)


def test_a_network_without_body_and_head_has_no_evidence():
    net = nn.Sequential(*network()[0], *network()[1]).eval()
    graph = Graph(net, Score(None, 1.0), SAMPLE)
    assert "not a body and a head" in graph.without_evidence
    session = onnxruntime.InferenceSession(to_onnx(graph, SAMPLE, graph.output_names))
    assert [output.name for output in session.get_outputs()] == ["logits", "score"]
    with pytest.raises(UnsupportedLearnerError, match="needs the features"):
        Graph(net, Score(UNSURE["knn"], 1.0), SAMPLE)


@pytest.mark.parametrize(
    ("unsure", "message"),
    [
        ({"score": "luck"}, "expected a score of energy, knn"),
        ({}, "expected a score of"),
        ({"score": "knn"}, "KeyError"),
        ({"score": "knn", "k": 0, "bank": [[1.0]]}, "k of 1 to 1, got 0"),
        ({"score": "knn", "k": 1, "bank": [[1.0], [1.0, 2.0]]}, "ValueError"),
        ({"score": "knn", "k": 1, "bank": ["%"]}, "Error"),
        ({"score": "mahalanobis", "means": [[1.0]], "precision": [[1.0, 2.0]]}, "shape"),
        ({"score": "mahalanobis", "means": 3, "precision": [[1.0]]}, "IndexError"),
    ],
)
def test_invalid_numbers_of_a_score_are_refused(unsure, message):
    with pytest.raises(UnsupportedLearnerError, match=message):
        Score(unsure, 1.0)


def test_any_module_is_written_as_onnx():
    session = onnxruntime.InferenceSession(to_onnx(network()[0], SAMPLE, ["maps"]))
    (maps,) = session.run(["maps"], {"image": SAMPLE[:3].numpy()})
    assert maps.shape == (3, 5, 6, 8)


def test_an_operation_that_onnx_lacks_is_named_with_what_to_do(capfd) -> None:
    network = nn.Sequential(nn.Unfold(3, padding=1), nn.Fold((4, 4), 3, padding=1))
    with pytest.raises(UnsupportedLearnerError, match=r"'aten::col2im'.*; train one") as raised:
        to_onnx(network.eval(), torch.zeros(1, 3, 4, 4), ["logits"])
    assert "version 18" not in str(raised.value)
    assert not capfd.readouterr().out


def test_a_transformer_of_torch_is_written() -> None:
    network = nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(16, 2, 16, batch_first=True))
    assert to_onnx(network.eval(), torch.randn(2, 3, 4, 4), ["logits"])
    assert torch.backends.mha.get_fastpath_enabled()
