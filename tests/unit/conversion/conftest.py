"""torchvision must be importable before a test uses a layer of torchvision or timm."""

from icon_classifier.system.torch_setup import mend_torchvision

mend_torchvision()
