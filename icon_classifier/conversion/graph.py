"""Write a network as ONNX, and add a score and a heat map to the network of a Learner.

Outputs beside the logits: ``score``, one number per photo that is HIGHER the more the photo is like
those that the model was trained on; and ``evidence``, the head applied to each cell of the body's
last feature map (class activation mapping, Zhou et al. 2016, for any head), one map per class.
"""

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from icon_classifier.errors import UnsupportedLearnerError

OPSET = 17
"""Version of ONNX's operators that is written."""

SCORES = ("energy", "knn", "mahalanobis", "max_logit", "max_probability")
"""Names of the scores; two of them are computed from features, the others from logits."""

FORWARD_ERRORS = (
    *(RuntimeError, TypeError, ValueError),
    *(AttributeError, LookupError, AssertionError),
)
"""What layers raise on an input of another shape, size or type than they take."""


class Score(nn.Module):
    """How familiar a photo is; higher is more.

    Parameters
    ----------
    unsure : mapping or None
        The value of ``learn.icon_classifier["unsure"]``: `score`, one of `SCORES`, and the numbers
        it needs, as lists. None means "energy".

        - "energy": T * logsumexp(logits / T), T being the temperature (Liu et al. 2020)
        - "max_logit": the greatest logit (Hendrycks et al. 2022)
        - "max_probability": the greatest of softmax(logits / T) (Hendrycks and Gimpel 2017)
        - "knn": cosine similarity to the `k`-th most similar row of `bank`, shape (B, F)
          (Sun et al. 2022); with `root` that of the features' square roots, with their signs. A row
          is a list, or the base64 form of signed bytes.
        - "mahalanobis": minus the least squared Mahalanobis distance to a row of `means`, shape
          (C, F), under `precision`, shape (F, F) (Lee et al. 2018)
    temperature : float
        Divides the logits; above 0.

    Raises
    ------
    UnsupportedLearnerError
        The score is unknown, or its numbers are missing or of another shape.
    """

    def __init__(self, unsure: Mapping[str, Any] | None, temperature: float) -> None:
        super().__init__()
        unsure = {"score": "energy"} if unsure is None else unsure
        self.name = str(unsure.get("score"))
        self.temperature = temperature
        if self.name not in SCORES:
            raise UnsupportedLearnerError(
                f"expected a score of {', '.join(SCORES)}, got {self.name!r}"
            )
        try:
            problem = self._read_numbers(unsure)
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            problem = f"{type(error).__name__}: {error}"
        if problem:
            raise UnsupportedLearnerError(
                f"the numbers of the score {self.name} are missing or invalid ({problem})"
            )

    def _read_numbers(self, unsure: Mapping[str, Any]) -> str:
        """Set the numbers that the score needs; return what is wrong with them, if anything."""
        if self.name == "knn":
            self.k = int(unsure["k"])
            self.root = bool(unsure.get("root"))
            rows = [_signed_bytes(row) if isinstance(row, str) else row for row in unsure["bank"]]
            self.bank = functional.normalize(torch.tensor(rows).float(), dim=1)
            if not 1 <= self.k <= len(self.bank):
                return f"expected k of 1 to {len(self.bank)}, got {self.k}"
        if self.name == "mahalanobis":
            self.means = torch.tensor(unsure["means"]).float()
            self.precision = torch.tensor(unsure["precision"]).float()
            features = self.means.shape[1]
            if self.precision.shape != (features, features):
                return (
                    f"expected precision of shape {(features, features)}, "
                    f"got {tuple(self.precision.shape)}"
                )
        return ""

    @property
    def needs_features(self) -> bool:
        """Whether it is computed from features; else from logits."""
        return self.name in ("knn", "mahalanobis")

    def forward(self, logits: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Score photos.

        Parameters
        ----------
        logits : torch.Tensor
            float32, shape (N, C).
        features : torch.Tensor, optional
            float32, shape (N, F): the output of the head's pooling.

        Returns
        -------
        torch.Tensor
            float32, shape (N,).
        """
        if self.name == "energy":
            return self.temperature * torch.logsumexp(logits / self.temperature, dim=1)
        if self.name == "max_logit":
            return logits.amax(dim=1)
        if self.name == "max_probability":
            return torch.softmax(logits / self.temperature, dim=1).amax(dim=1)
        if features is None:
            raise UnsupportedLearnerError(f"expected features for the score {self.name}, got none")
        if self.name == "knn":
            if self.root:
                features = features.sign() * features.abs().sqrt()
            similar = functional.normalize(features, dim=1) @ self.bank.T  # (N, B)
            return similar.topk(self.k, dim=1).values[:, -1]
        offsets = features[:, None] - self.means  # (N, C, F)
        return -((offsets @ self.precision) * offsets).sum(dim=2).amin(dim=1)


def _signed_bytes(row: str) -> list[int]:
    return [byte - 256 if byte > 127 else byte for byte in base64.b64decode(row, validate=True)]


class Graph(nn.Module):
    """The module that is converted: normalised photos in, logits, score and evidence out.

    Parameters
    ----------
    network : torch.nn.Module
        The network of a ``vision_learner``: a body and a head. Any other has no evidence.
    score : Score
        How familiar a photo is.
    sample : torch.Tensor
        float32, shape (N, K, H, W); used to find out whether the network has evidence.

    Attributes
    ----------
    without_evidence : str
        Why `forward` returns no evidence; empty if it does.
    """

    def __init__(self, network: nn.Module, score: Score, sample: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.score = score
        self.without_evidence = ""
        self.split = isinstance(network, nn.Sequential) and len(network) == 2
        self.pooled = self._pooled_layers()
        if score.needs_features and not self.pooled:
            raise UnsupportedLearnerError(
                f"the score {score.name} needs the features after the head's pooling, but this "
                "network has no head that starts with pooling and Flatten"
            )
        try:
            with torch.no_grad():
                self._cells(self._maps(sample))
        except FORWARD_ERRORS as error:
            self.without_evidence = f"the head does not work on single cells: {error}"

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what `forward` returns."""
        return ("logits", "score") if self.without_evidence else ("logits", "score", "evidence")

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Classify photos.

        Parameters
        ----------
        image : torch.Tensor
            float32, shape (N, K, H, W), normalised.

        Returns
        -------
        logits : torch.Tensor
            float32, shape (N, C).
        score : torch.Tensor
            float32, shape (N,).
        evidence : torch.Tensor
            float32, shape (N, C, h, w); missing if `without_evidence` says why.
        """
        if not self.split:
            logits = self.network(image)
            return logits, self.score(logits)
        maps = self._maps(image)
        features = None
        if self.pooled:
            features = self._head[: self.pooled](maps)
            logits = self._head[self.pooled :](features)
        else:
            logits = self._head(maps)
        outputs = logits, self.score(logits, features)
        return outputs if self.without_evidence else (*outputs, self._cells(maps))

    @property
    def _head(self) -> Any:
        return self.network[1]  # type: ignore[index]

    def _pooled_layers(self) -> int:
        """Count the layers of the head up to its first Flatten, included; 0 if there is none."""
        if self.split and isinstance(self._head, nn.Sequential):
            for at, layer in enumerate(self._head):
                if type(layer).__name__ == "Flatten":
                    return at + 1
        return 0

    def _maps(self, image: torch.Tensor) -> torch.Tensor:
        """Run the body, (N, K, H, W) -> (N, F, h, w)."""
        if not self.split:
            raise ValueError("the network is not a body and a head")
        maps: torch.Tensor = self.network[0](image)  # type: ignore[index]
        return maps

    def _cells(self, maps: torch.Tensor) -> torch.Tensor:
        """Run the head on each cell of a map, (N, F, h, w) -> (N, C, h, w)."""
        if maps.dim() != 4:
            raise ValueError(f"expected maps of 4 dimensions, got {maps.dim()}")
        _, channels, height, width = (int(side) for side in maps.shape)
        cells = maps.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)  # -> (N h w, F, 1, 1)
        logits: torch.Tensor = self._head(cells)  # -> (N h w, C)
        return logits.reshape(-1, height, width, logits.shape[1]).permute(0, 3, 1, 2)


def to_onnx(module: nn.Module, sample: torch.Tensor, output_names: Sequence[str]) -> bytes:
    """Write a module as an ONNX model of one input, ``image``, and any number of photos.

    torch's exporter by tracing is used, though it is deprecated: it is exact for these networks and
    needs no package but onnx.

    Parameters
    ----------
    module : torch.nn.Module
        In evaluation mode.
    sample : torch.Tensor
        float32, shape (N, K, H, W).
    output_names : sequence of str
        One for each tensor that the module returns, all of shape (N, ...).

    Raises
    ------
    UnsupportedLearnerError
        The module does something that ONNX cannot express.
    """
    file = io.BytesIO()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operator for attention, not in ONNX
    # The exporter prints the graph where an operator is missing, and always turns this log on.
    torch._C._jit_set_onnx_log_output_stream("stderr")  # stdout may be JSON
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # About the deprecation, and about sizes that become constants, as they should.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                (sample,),
                file,  # type: ignore[arg-type]
                input_names=["image"],
                output_names=list(output_names),
                dynamic_axes={name: {0: "N"} for name in ("image", *output_names)},
                opset_version=OPSET,
                dynamo=False,
            )
    except (*FORWARD_ERRORS, torch.onnx.errors.OnnxExporterError) as error:
        # torch advises another opset, which nobody can choose here.
        reason = str(error).strip().partition("\n")[0].partition(" Support for this operator")[0]
        raise UnsupportedLearnerError(
            f"the network cannot be written as ONNX ({reason}); train one without that operation, "
            "such as resnet34, and export it"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return file.getvalue()
