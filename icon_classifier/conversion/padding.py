"""Replace padding that depends on the size of the input by constant padding.

TensorFlow's networks, as timm has them, compute the padding of a convolution from the size of its
input. In ONNX each such convolution is preceded by a graph that computes it, which keeps ONNX
Runtime from fusing the padding and from using its blocked layout: a third of the time of a small
network.
"""

import copy
from typing import Any

import torch
from torch import nn

_PADS_ITSELF = "Conv2dSame"
"""Name of timm's class; timm need not be installed."""


def with_fixed_padding(network: nn.Module, sample: torch.Tensor) -> nn.Module:
    """Copy a network for pictures of one size only.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; not changed.
    sample : torch.Tensor
        float32, shape (N, K, H, W).

    Returns
    -------
    torch.nn.Module
        Its outputs are the same, bit for bit, for pictures of H times W. The network itself where
        no layer pads by the size of its input.
    """
    if not any(map(_pads_itself, network.modules())):
        return network
    network = copy.deepcopy(network)
    sizes = input_sizes(network, sample)
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            seen = {size[-2:] for size in sizes.get(layer, ())}
            if _pads_itself(layer) and len(seen) == 1:  # one used at two sizes stays as it is
                setattr(parent, name, _padded(layer, *seen))
    return network


def input_sizes(network: nn.Module, sample: torch.Tensor) -> dict[nn.Module, set[tuple[int, ...]]]:
    """Run a network; return the shapes of the inputs of each of its layers that is used."""
    sizes: dict[nn.Module, set[tuple[int, ...]]] = {}

    def record(layer: nn.Module, inputs: Any) -> None:
        shapes = (tuple(map(int, each.shape)) for each in inputs if isinstance(each, torch.Tensor))
        sizes.setdefault(layer, set()).update(shapes)

    hooks = [layer.register_forward_pre_hook(record) for layer in network.modules()]
    try:
        with torch.inference_mode():
            network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def _pads_itself(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and type(layer).__name__ == _PADS_ITSELF


def _padded(layer: Any, size: tuple[int, ...]) -> nn.Sequential:
    """Return constant padding and a convolution without any; the weights are shared."""
    pads: list[int] = []
    for side, kernel, stride, dilation in zip(
        size, layer.kernel_size, layer.stride, layer.dilation, strict=True
    ):
        outputs = -(side // -stride)
        missing = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
        # ZeroPad2d wants left, right, top, bottom: the last dimension first.
        pads = [missing // 2, missing - missing // 2, *pads]
    bare = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=False,
    )
    bare.weight, bare.bias = layer.weight, layer.bias
    return nn.Sequential(nn.ZeroPad2d(tuple(pads)), bare).eval()  # type: ignore[arg-type]
