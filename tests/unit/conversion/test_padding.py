"""Constant padding gives the numbers of timm's convolutions that pad themselves."""

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from icon_classifier.conversion.padding import with_fixed_padding


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [(32, 32), (33, 46)])
def test_fixed_padding_gives_the_same_numbers(
    kernel: int, stride: int, dilation: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2)
    network = nn.Sequential(nn.Sequential(layer, nn.ReLU()), Conv2dSame(6, 3, 3, 2, bias=False))
    network.eval()
    sample = torch.randn(2, 4, *size)

    fixed = with_fixed_padding(network, sample[:1])

    with torch.inference_mode():
        assert torch.equal(fixed(sample), network(sample))
    assert not any(isinstance(each, Conv2dSame) for each in fixed.modules())
    assert isinstance(network[0][0], Conv2dSame), "the network itself was changed"


def test_a_layer_that_is_used_at_two_sizes_is_kept() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Conv2dSame(3, 3, 3, 2)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            again: torch.Tensor = self.layer(self.layer(image))
            return again

    network, sample = Twice().eval(), torch.randn(1, 3, 20, 17)

    fixed = with_fixed_padding(network, sample)

    assert isinstance(fixed.layer, Conv2dSame)
    with torch.inference_mode():
        assert torch.equal(fixed(sample), network(sample))


def test_other_layers_are_kept() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()).eval()
    fixed = with_fixed_padding(network, torch.randn(1, 3, 8, 8))
    assert [type(each) for each in fixed] == [nn.Conv2d, nn.ReLU]
