"""Run an export.onnx by ONNX Runtime, without torch.

The page, the API and the command line need only this file. docs/model-file.md describes it;
:mod:`icon_classifier.conversion.convert` writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

from icon_classifier.errors import ImageTooLargeError, ModelDamagedError
from icon_classifier.model.info import METADATA_KEY, ModelInfo, read_model_file

EVIDENCE = "evidence"
"""Name of the output for the heat map; some models have none."""

_ROWS = 32


@dataclass(frozen=True)
class Prediction:
    """The answer for one photo.

    Attributes
    ----------
    label : str
        The most probable class.
    probability : float
        Its probability, 0 to 1, after temperature scaling.
    ranking : tuple of (str, float)
        Every class with its probability, the most probable first.
    known : bool
        Whether the photo looks like those that the model was trained on. If not, ``label`` is only
        the closest class.
    score : float
        How familiar the photo looks, in the units of the model's own score; higher is more.
    evidence : numpy.ndarray or None
        float32, shape (C, h, w): the logit of each class at each cell of the transformed photo, in
        the order of the model's labels. Only if it was asked for and the model has it.
    """

    label: str
    probability: float
    ranking: tuple[tuple[str, float], ...]
    known: bool
    score: float
    evidence: npt.NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"Prediction: {self.label}; Probability: {self.probability:.4f}"


class Model:
    """An ONNX Runtime session and the metadata of its file.

    Parameters
    ----------
    data : bytes
        The content of an export.onnx. Bytes, not a path, so that nothing in the file can name
        another file to be read.
    threads : int, optional
        How many cores one photo may use. With 1 no thread is started and the process can be forked.
    keep_memory : bool, optional
        Whether to keep the memory of a prediction, some 30 MB, for the next one; with several
        threads it is always kept. Predictions get a little faster, batches of them much.

    Raises
    ------
    ModelDamagedError
        If the bytes are not an ONNX model with our metadata.
    """

    def __init__(self, data: bytes, threads: int = 1, *, keep_memory: bool = False) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # The arena never returns its 30 MB, too much for each visitor's kernel. With the pattern,
        # a prediction allocates its memory in one piece instead of layer by layer.
        options.enable_cpu_mem_arena = keep_memory or threads > 1
        options.enable_mem_pattern = True
        # Threads that spin while they wait take the cores from other processes: on a busy machine a
        # photo then costs twice the processor time and takes twice as long.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            entry = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
            outputs = [(output.name, output.shape) for output in self._session.get_outputs()]
        except Exception as error:
            # ONNX Runtime derives its errors from RuntimeError, ValueError and plain Exception.
            raise ModelDamagedError(f"ONNX Runtime cannot read the model: {error}") from error
        if entry is None:
            raise ModelDamagedError(f"the model has no entry {METADATA_KEY!r} in its metadata")
        self.info = ModelInfo.from_json(entry)
        self._outputs = [name for name, _ in outputs]
        if self._outputs[:2] != ["logits", "score"]:
            raise ModelDamagedError(f"expected outputs logits and score, got {self._outputs}")
        classes = outputs[0][1][-1:]
        if isinstance(classes[0] if classes else None, int) and classes != [len(self.labels)]:
            raise ModelDamagedError(f"expected {len(self.labels)} logits, got {classes}")
        steps = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)  # (256, 1)
        self._normalised = ((steps - self.info.mean) / self.info.std).T.copy()  # (K, 256)
        # Only the outputs that are asked for are computed, so that an unused heat map is free.
        self._run_options = ort.RunOptions()
        self._run_options.only_execute_path_to_fetches = True

    @classmethod
    def load(cls, path: str | Path, threads: int = 1, *, keep_memory: bool = False) -> Model:
        """Read a model from its file.

        Parameters
        ----------
        path : str or pathlib.Path
            An export.onnx.
        threads : int, optional
            How many cores one photo may use.
        keep_memory : bool, optional
            See :class:`Model`.

        Raises
        ------
        ModelMissingError
            If there is no such file.
        ModelDamagedError
            If it cannot be read or is not an ONNX model with our metadata.
        """
        return cls(read_model_file(path), threads, keep_memory=keep_memory)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.info.labels

    def transform(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """Apply the Learner's validation transforms to a photo.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB, upright, of any size.

        Returns
        -------
        numpy.ndarray
            float32, shape (K, H, W), normalised; K is 3, or 1 for a model of grey photos.
        """
        if image.mode != self.info.mode:  # fastai makes a photo grey before all else
            image = image.convert(self.info.mode)
        return self.normalise(np.asarray(self.info.pipeline(image)))

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Normalise the pixels of a photo to which the pipeline was applied.

        Parameters
        ----------
        pixels : numpy.ndarray
            uint8, shape (H, W, 3), or (H, W) or (H, W, 1) for a model of grey photos.

        Returns
        -------
        numpy.ndarray
            float32, shape (K, H, W).
        """
        pixels = np.atleast_3d(pixels)
        result = np.empty((len(self._normalised), *pixels.shape[:2]), np.float32)
        # A table of the 256 values gives the same numbers in a third of the time. NumPy makes
        # indices of 8 bytes: those of a few rows fit into memory that the process has already.
        for channel, values in enumerate(self._normalised):
            band = pixels[..., channel % pixels.shape[2]]
            for top in range(0, len(band), _ROWS):
                rows = slice(top, top + _ROWS)
                np.take(values, band[rows], out=result[channel, rows], mode="clip")
        return result

    def predict(self, image: Image.Image, *, explain: bool = False) -> Prediction:
        """Classify one photo.

        Parameters
        ----------
        image : PIL.Image.Image
            Mode RGB, upright, as :func:`icon_classifier.images.read_image` returns it.
        explain : bool, optional
            Also return the evidence: the network's head applied to each cell of the last feature
            map of its body, class activation mapping (Zhou et al. 2016) for any head. It is
            computed in the same pass.
        """
        return self.predict_arrays(self.transform(image)[None], explain=explain)[0]

    def predict_arrays(
        self, batch: npt.NDArray[np.float32], *, explain: bool = False
    ) -> list[Prediction]:
        """Classify photos that :meth:`transform` returned.

        Parameters
        ----------
        batch : numpy.ndarray
            float32, shape (N, K, H, W).
        explain : bool, optional
            As in :meth:`predict`.
        """
        names = ["logits", "score", *([EVIDENCE] if explain and self.can_explain else [])]
        try:
            logits, scores, *rest = self._session.run(names, {"image": batch}, self._run_options)
        except Exception as error:
            if any(lack in str(error) for lack in ("bad_alloc", "Failed to allocate memory")):
                raise ImageTooLargeError("no memory left to run the model") from error
            raise ModelDamagedError(f"ONNX Runtime cannot run the model: {error}") from error
        probabilities = softmax(np.asarray(logits, np.float64) / self.info.temperature)  # (N, C)
        evidence = rest[0] if rest else [None] * len(batch)  # (N, C, h, w)
        return [
            self._prediction(row, float(score), cells)
            for row, score, cells in zip(probabilities, scores, evidence, strict=True)
        ]

    @property
    def can_explain(self) -> bool:
        """Whether the model has evidence to return."""
        return EVIDENCE in self._outputs

    def _prediction(
        self,
        probabilities: npt.NDArray[np.float64],
        score: float,
        evidence: npt.NDArray[np.float32] | None,
    ) -> Prediction:
        order = np.argsort(-probabilities, kind="stable")
        ranking = tuple((self.labels[i], float(probabilities[i])) for i in order)
        threshold = self.info.threshold
        return Prediction(
            label=ranking[0][0],
            probability=ranking[0][1],
            ranking=ranking,
            known=threshold is None or score >= threshold,
            score=score,
            evidence=evidence,
        )


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the probabilities of logits, float64 of shape (..., C); the same shape."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return result
