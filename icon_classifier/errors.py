"""Every error that this package raises on purpose, in one tree.

::

    IconClassifierError
    ├── NoPhotoError                no photo was chosen
    ├── ImageError                  the photo cannot be used
    │   ├── EmptyImageError
    │   ├── UnsupportedImageError   not a picture, or of a format that is not read
    │   ├── DamagedImageError       a picture, but cut off or broken
    │   ├── ImageTooLargeError      too many bytes or pixels
    │   └── ImageTooSmallError
    ├── ModelError                  the model cannot be used
    │   ├── ModelMissingError
    │   ├── ModelDamagedError
    │   └── ModelStaleError         export.onnx is older than export.pkl or the code that converts
    ├── ConversionError             export.pkl cannot be converted
    │   ├── UntrustedExportError    it uses what only a crafted file uses
    │   ├── NotAnExportError        a file of another kind
    │   └── UnsupportedLearnerError
    ├── TrainingError               a model cannot be trained
    │   ├── RecipeError
    │   └── DatasetError
    │       └── DownloadError
    ├── FeedbackError               a visitor's photo cannot be kept
    ├── KernelError                 a visitor's kernel cannot be started
    ├── DeploymentError             a served page does not work
    ├── SettingsError               an option has an invalid value
    └── RequestError                the JSON API cannot serve a request
        ├── FetchError              the picture at an address cannot be fetched
        ├── UploadError             the request contains no photo, or too much
        │   ├── UploadTooLargeError
        │   └── SlowUploadError
        ├── ApiKeyError
        └── BusyError
            └── RateLimitError      one client exceeds its limit

The text of an error is for the log and may name files; :attr:`IconClassifierError.words` is for a
visitor: one plain sentence that says what to do next, and never a path or a traceback.
"""

from collections.abc import Iterable

from icon_classifier.formats import FORMATS


def not_a_picture(formats: Iterable[str]) -> str:
    """Return the words for a file of none of these formats."""
    *some, last = formats
    names = f"{', '.join(some)} or {last}"
    return f"This file is not a picture that can be read; please choose a {names}."


MAX_MESSAGE = 2_000
"""Characters of a message that are kept; what it quotes may be of any length."""


class IconClassifierError(Exception):
    """Base of all errors of this package.

    Parameters
    ----------
    message : str
        What went wrong, for the log: what was expected and what was got.
    words : str, optional
        The sentence for a visitor, where it can say more than the default of the class.

    Attributes
    ----------
    words : str
        One plain sentence for a visitor.
    """

    words: str = "Something went wrong here; please try again."

    def __init__(self, message: str = "", *, words: str | None = None) -> None:
        super().__init__((message or words or self.words)[:MAX_MESSAGE])
        if words is not None:
            self.words = words


class NoPhotoError(IconClassifierError):
    """No photo was chosen."""

    words = "Please choose a photo first."


class ImageError(IconClassifierError):
    """The photo cannot be used."""

    words = "This photo could not be read; please try another one."


class EmptyImageError(ImageError):
    """The file is empty."""

    words = "This file is empty; please choose another one."


class UnsupportedImageError(ImageError):
    """The file is not a picture, or of a format that is not read."""

    words = not_a_picture(FORMATS.values())


class DamagedImageError(ImageError):
    """The file starts like a picture but is cut off or broken."""

    words = "This picture is damaged or incomplete; please choose another one or send it again."


class ImageTooLargeError(ImageError):
    """The picture has more bytes or pixels than the limits allow."""

    words = "This picture is too large; please choose a smaller one."


TOO_NARROW = "This picture is too long and narrow; please crop it."
TOO_SLOW = "This picture takes too long to read; please choose another one."
STALLED = "No photo was finished for a minute; please restart this server."
FILE_NOT_OPENED = "This file cannot be opened; please check it."


def megabytes(limit: int) -> str:
    """Format a number of bytes: ``25 MB``, ``1.5 MB``, ``0.95 MB``."""
    return f"{_rounded(limit / 2**20)} MB"


def too_many_bytes(limit: int) -> str:
    """Return the words for a file of more than `limit` bytes."""
    return f"This file is larger than {megabytes(limit)}; please choose a smaller one."


def too_many_pixels(limit: int) -> str:
    """Return the words for a picture of more than `limit` pixels."""
    megapixels = _rounded(limit / 1e6)
    return f"This picture has more than {megapixels} megapixels; please choose a smaller one."


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


class ImageTooSmallError(ImageError):
    """The picture has a side that is shorter than the limits allow."""

    words = "This picture is too small to classify; please choose a larger one."


class ModelError(IconClassifierError):
    """The model cannot be used."""

    words = "The model of this page cannot be used right now; please tell whoever runs it."


class ModelMissingError(ModelError):
    """There is no export.onnx, and none can be made."""

    words = "The model of this page is missing; please tell whoever runs it."


class ModelDamagedError(ModelError):
    """A file of the model is broken or is not one of ours."""

    words = "The model of this page is damaged; please tell whoever runs it."


class ModelStaleError(ModelError):
    """export.onnx was converted from another export.pkl, or by another version of the code."""

    words = "The model of this page is out of date; please tell whoever runs it."


class ConversionError(IconClassifierError):
    """export.pkl cannot be converted to export.onnx."""

    words = "This export.pkl cannot be used; please read what the command line says about it."


class UntrustedExportError(ConversionError):
    """export.pkl uses what only a crafted file uses; nothing in it was run."""

    words = "This export.pkl holds more than a model; please export it again with learn.export()."


class NotAnExportError(ConversionError):
    """The file is not one that ``learn.export()`` wrote."""

    words = "This file is not a model of learn.export(); please read what the command line says."


class UnsupportedLearnerError(ConversionError):
    """export.pkl holds a Learner that the page cannot reproduce exactly."""

    words = "This export.pkl does something that the page cannot repeat; please train it again."


class TrainingError(IconClassifierError):
    """A model cannot be trained."""

    words = "The model could not be trained; please read the message above."


class RecipeError(TrainingError):
    """A recipe has a missing, unknown or invalid entry."""

    words = "This recipe cannot be used; please fix the entry that the message names."


class DatasetError(TrainingError):
    """The photos to train on are missing, too few or mostly bad."""

    words = "These photos cannot be trained on; please fix what the message names."


class DownloadError(DatasetError):
    """Photos cannot be searched for or downloaded."""

    words = (
        "The photos could not be downloaded; please try again later or use a folder of your own."
    )


class FeedbackError(IconClassifierError):
    """A photo that a visitor gives cannot be kept, or not be removed."""

    words = "This photo could not be kept; please tell whoever runs this page."


class KernelError(IconClassifierError):
    """A visitor's kernel cannot be started."""

    words = "This page could not be started; please try again in a minute."


class DeploymentError(IconClassifierError):
    """A served page does not work."""

    words = "This page does not work at the moment; please try again later."


class SettingsError(IconClassifierError):
    """An option or environment variable has an invalid value."""

    words = "This page is misconfigured; please tell whoever runs it."


class RequestError(IconClassifierError):
    """The JSON API cannot serve a request."""

    words = "This request cannot be served; please check it against the documentation."


class FetchError(RequestError):
    """The picture at an address cannot or must not be fetched."""

    words = "The picture at this address could not be fetched; please check the address."


class UploadError(RequestError):
    """The request contains no photo."""

    words = "There is no photo in this request; please send one as a file or as the body."


class UploadTooLargeError(UploadError):
    """A request has more bytes or more photos than the limits allow."""

    words = "This is too much at once; please send fewer or smaller photos."


class SlowUploadError(UploadError):
    """A request took longer to arrive than the limits allow."""

    words = "The photo took too long to arrive; please send a smaller one or try again."


class ApiKeyError(RequestError):
    """The request carries no API key, or a wrong one."""

    words = "This needs an API key, and got none or a wrong one; programs send it as X-API-Key."


class BusyError(RequestError):
    """The server is busy.

    Attributes
    ----------
    retry_after : int
        Seconds after which it makes sense to try again.
    """

    words = "Too many people are here right now; please try again in a few seconds."
    retry_after: int = 2

    def __init__(
        self, message: str = "", *, words: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message, words=words)
        if retry_after is not None:
            self.retry_after = retry_after


class RateLimitError(BusyError):
    """One client sends more requests than its limit allows."""

    words = "You asked for too many photos within a minute; please wait a moment."
