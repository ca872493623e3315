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
    steps = [_step(step) for step in metadata["transforms"]]
    steps += [f"resample to {width} x {height}" for width, height in learner.get("resampled", ())]
    grey = "grey; " if metadata.get("mode") == "L" else ""
    yield "photo", grey + "; then ".join(steps)
    yield "normalisation", f"mean {_numbers(metadata['mean'])}; std {_numbers(metadata['std'])}"
    yield "loss", learner.get("loss", "")
    yield "fastai", learner.get("fastai") or "version not recorded"
    never = "never: every photo, of whatever it is, gets one of the classes"
    yield "not sure", f"{unsure['score']} below {unsure['threshold']:.4g}" if unsure else never
    if metadata["temperature"] != 1:  # one trained here has it in its head
        yield "temperature", f"{metadata['temperature']:.4g}"
    if int8 := metadata.get("int8"):
        yield "weights", f"8-bit integers, calibrated on {int8['photos']} photos"
    yield "heat map", "yes" if evidence is True else f"no: {evidence}"
    for part in learner.get("left_out", ()):
        yield "left out", part


def comparison(judged: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a smaller model changes.

    Parameters
    ----------
    judged : mapping
        A `icon_classifier.compact.comparison.Comparison`, as it is in the metadata's ``int8``.
    """
    photos = judged["photos"]
    yield "judged on", f"{photos} photos; the exact model and this one:"
    yield "same label", f"{judged['same_label']} of {photos}"
    yield "same not sure", f"{judged['same_unsure']} of {photos}"
    yield "probabilities", f"differ by {judged['largest_difference']:.2g} at most"
    if judged["errors"]:
        yield "wrong labels", "{} and {}".format(*judged["errors"])
    yield "time", "{:.1f} and {:.1f} ms of one core".format(*judged["milliseconds"])
    yield "size", "{:.1f} and {:.1f} MB".format(*judged["megabytes"])


def history(metadata: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield how a model was made and how good it is, as names and values."""
    yield "recipe", metadata.get("recipe") or "not recorded"
    yield "trained", metadata.get("trained") or "not recorded"
    yield "converted", f"{metadata.get('date')} from SHA-256 {metadata['export_sha256']}"
    for name, value in metadata.get("figures", {}).items():
        # --json has the tables, too; the temperature is in the summary.
        if isinstance(value, int | float) and name != "temperature":
            yield name.replace("_", " "), f"{value:.4g}"
    yield (
        "versions",
        ", ".join(f"{name} {version}" for name, version in metadata["versions"].items()),
    )


def notes(metadata: Mapping[str, Any], card: str = "") -> Iterator[str]:
    """Yield what the owner of a new model should know, as sentences.

    Parameters
    ----------
    metadata : mapping
        As in `summary`.
    card : str
        The model card that lies beside the model.
    """
    yield from (metadata.get("learner") or {}).get("assumed", ())
    labels = metadata["labels"]
    vocab = metadata.get("vocab") or labels
    unnamed = [label for label, name in zip(vocab, labels, strict=False) if label == name][:3]
    if unnamed and all(label.isdecimal() or label.lower() in _NUMBERED for label in vocab):
        lines = " and ".join(f"{label} = …" for label in unnamed)
        yield (
            f"Visitors will read the classes as {', '.join(unnamed)}. To name them, write "
            f"{lines} into export.names.txt beside export.pkl, a line each; the next make app or "
            "icon-classifier convert reads it."
        )
    if "\nTrained " in card and f"\nTrained {metadata.get('trained')}." not in card:
        yield "The model card export.md is that of another model; replace or delete it."


def _step(step: Mapping[str, Any]) -> str:
    width, height = step["size"]
    if step["op"] == "resize":
        how = f"{_METHODS[step['method']]}, {_FILTERS[step['resample']]}"
        return f"resize to {width} x {height} ({how})"
    return f"crop or pad to {width} x {height}"


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
