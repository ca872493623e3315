"""torchvision must be importable before a test names one of its layers, or timm's."""

from icon_classifier.conversion.torch_setup import mend_torchvision

mend_torchvision()
