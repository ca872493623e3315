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
        float32, shape (N, 3, H, W).

    Returns
    -------
    torch.nn.Module
        Its outputs are the same, bit for bit, for pictures of H times W. The network itself where
        no layer pads by the size of its input.
    """
    sizes = _sizes(network, sample)
    if not sizes:
        return network
    network = copy.deepcopy(network)
    for parent_name, parent in list(network.named_modules()):
        for name, layer in list(parent.named_children()):
            seen = sizes.get(f"{parent_name}.{name}".lstrip("."), set())
            if len(seen) == 1:  # a layer that is used at two sizes stays as it is
                setattr(parent, name, _padded(layer, *seen))
    return network


def _sizes(network: nn.Module, sample: torch.Tensor) -> dict[str, set[tuple[int, int]]]:
    """Run the network; return the sizes of the inputs of each layer that pads itself."""
    sizes: dict[str, set[tuple[int, int]]] = {}
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and type(layer).__name__ == _PADS_ITSELF:
            seen = sizes.setdefault(name, set())

            def record(_: nn.Module, inputs: Any, seen: set[tuple[int, int]] = seen) -> None:
                height, width = inputs[0].shape[-2:]
                seen.add((int(height), int(width)))

            hooks.append(layer.register_forward_pre_hook(record))
    try:
        with torch.inference_mode():
            network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def _padded(layer: nn.Conv2d, size: tuple[int, int]) -> nn.Sequential:
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
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        dilation=layer.dilation,  # type: ignore[arg-type]
        groups=layer.groups,
        bias=False,
    )
    bare.weight, bare.bias = layer.weight, layer.bias
    return nn.Sequential(nn.ZeroPad2d(tuple(pads)), bare).eval()  # type: ignore[arg-type]
