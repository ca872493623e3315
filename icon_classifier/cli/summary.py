"""Say in lines of text what a model is: for ``icon-classifier info`` and ``convert``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_FILTERS = ("nearest", "Lanczos", "bilinear", "bicubic", "box", "Hamming")
_METHODS = {"crop": "crop the longer side", "pad": "pad the shorter side", "squish": "squish"}
_NUMBERED = ("true", "false")


def summary(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a model is, as names and values.

    Parameters
    ----------
    metadata : mapping
        The metadata of an export.onnx, checked; docs/model-file.md describes the entries.
    """
    learner = metadata.get("learner") or {}
    unsure, evidence = metadata.get("unsure"), metadata.get("evidence")
    yield "classes", ", ".join(metadata["labels"])
    yield "network", learner.get("network", "")
    yield "photo", "; then ".join(map(_step, metadata["transforms"]))
    yield "normalisation", f"mean {_numbers(metadata['mean'])}; std {_numbers(metadata['std'])}"
    yield "loss", learner.get("loss", "")
    yield "fastai", learner.get("fastai") or "version not recorded"
    yield "not sure", f"{unsure['score']} below {unsure['threshold']:.4g}" if unsure else "never"
    yield "temperature", f"{metadata['temperature']:.4g}"
    yield "heat map", "yes" if evidence is True else f"no: {evidence}"
    for part in learner.get("left_out", ()):
        yield "left out", part


def history(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield how a model was made and how good it is, as names and values."""
    yield "recipe", metadata.get("recipe") or "not recorded"
    yield "trained", metadata.get("trained") or "not recorded"
    yield "compiled", f"{metadata.get('date')} from SHA-256 {metadata['export_sha256']}"
    for name, value in metadata.get("figures", {}).items():
        # --json has the tables, too; the temperature is in the summary.
        if isinstance(value, int | float) and name != "temperature":
            yield name.replace("_", " "), f"{value:.4g}"
    yield (
        "versions",
        ", ".join(f"{name} {version}" for name, version in metadata["versions"].items()),
    )


def notes(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the owner of a new model should know, as sentences."""
    yield from (metadata.get("learner") or {}).get("assumed", ())
    labels = metadata["labels"]
    if all(label.isdecimal() or label.lower() in _NUMBERED for label in labels):
        example = ",".join(f"{label}=…" for label in labels[:3])
        yield (
            f"Visitors will read the classes as {', '.join(labels[:3])}. To name them: "
            f"icon-classifier convert --names '{example}'"
        )


def _step(step: Mapping[str, Any]) -> str:
    width, height = step["size"]
    if step["op"] == "resize":
        how = f"{_METHODS[step['method']]}, {_FILTERS[step['resample']]}"
        return f"resize to {width} x {height} ({how})"
    return f"crop or pad to {width} x {height}"


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
