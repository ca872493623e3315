"""Padding that is known when a model is compiled, not found anew for each photo.

TensorFlow's networks, as timm brings them, pad by what the size of a picture leaves over. Written
as ONNX that is a graph of its own before such a convolution, which keeps ONNX Runtime from fusing
the padding into it and from keeping its blocked layout: a third of the time of a small network.
"""

import copy
from typing import Any

import torch
from torch import nn

_PADS_ITSELF = "Conv2dSame"
"""Name of timm's class; timm need not be there."""


def with_fixed_padding(network: nn.Module, sample: torch.Tensor) -> nn.Module:
    """Copy a network for pictures of one size only.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode; stays as it is.
    sample : torch.Tensor
        float32, shape (N, 3, H, W).

    Returns
    -------
    torch.nn.Module
        It gives the very same numbers for pictures of H times W.
    """
    sizes = _sizes(network, sample)
    network = copy.deepcopy(network)
    for parent_name, parent in list(network.named_modules()):
        for name, layer in list(parent.named_children()):
            seen = sizes.get(f"{parent_name}.{name}".lstrip("."), set())
            if len(seen) == 1:  # a layer that is used at two sizes goes on finding out by itself
                setattr(parent, name, _padded(layer, *seen))
    return network


def _sizes(network: nn.Module, sample: torch.Tensor) -> dict[str, set[tuple[int, int]]]:
    """Run the network and note what size each layer that pads itself gets."""
    sizes: dict[str, set[tuple[int, int]]] = {}
    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and type(layer).__name__ == _PADS_ITSELF:
            seen = sizes.setdefault(name, set())

            def note(_: nn.Module, inputs: Any, seen: set[tuple[int, int]] = seen) -> None:
                height, width = inputs[0].shape[-2:]
                seen.add((int(height), int(width)))

            hooks.append(layer.register_forward_pre_hook(note))
    try:
        with torch.inference_mode():
            network(sample)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def _padded(layer: nn.Conv2d, size: tuple[int, int]) -> nn.Sequential:
    """Put the padding before a convolution that does none; the weights are shared."""
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
