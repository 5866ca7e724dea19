"""Weight gradients of convolutions as one matrix product, where that is faster: with AMX, for small maps.

oneDNN's backward pass adds to the whole filter once for each image. With maps of 4x4 and 256 channels that takes most
of a step of a small network: 18.9 ms for 128 images where the forward pass takes 3.2 ms, and a product over all
places of all images 7.9 ms (one core of a Xeon with AMX, torch 2.14.1; at 2x2 14.9, 2.1 and 1.7 ms). Without AMX, and
in f32, the product is not faster.
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from ssl_app import processor

CHANNELS_PER_PLACE = 4  # output channels over places of the output map, from which on the product is faster


def with_fast_gradients(network: nn.Module) -> None:
    """Give the network's plain convolutions the faster gradients; their parameters and results stay what they are."""
    for module in network.modules():
        if type(module) is nn.Conv2d and _is_plain(module):
            module.__class__ = Convolution


class Convolution(nn.Conv2d):
    """torch's, that computes its weight gradient as a product where that is faster. (B, I, H, W) -> (B, O, h, w)."""

    def forward(self, images: Tensor) -> Tensor:
        """As torch does."""
        if not self._as_product(images):
            return super().forward(images)
        stride, padding = self.stride[0], int(self.padding[0])
        with torch.autocast("cpu", enabled=False):
            x = images.bfloat16().contiguous(memory_format=torch.channels_last)
            y: Tensor = _Convolved.apply(x, self.weight.bfloat16(), stride, padding)
            return y if self.bias is None else y + self.bias.bfloat16()[:, None, None]

    def _as_product(self, images: Tensor) -> bool:
        if not (torch.is_grad_enabled() and self.weight.requires_grad and images.device.type == "cpu"):
            return False
        if not torch.is_autocast_enabled("cpu") or torch.get_autocast_dtype("cpu") != torch.bfloat16:
            return False
        border = 2 * int(self.padding[0]) - self.kernel_size[0]
        places = math.prod((side + border) // self.stride[0] + 1 for side in images.shape[-2:])
        return CHANNELS_PER_PLACE * places <= self.out_channels and "amx_bf16" in processor.features()


class _Convolved(torch.autograd.Function):
    """A convolution of bf16, NHWC in memory."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        """(B, I, H, W), (O, I, k, k) -> (B, O, h, w)."""
        ctx.save_for_backward(x, weight)
        ctx.about = stride, padding  # type: ignore[attr-defined]
        return torch.conv2d(x, weight, None, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """Of the images by torch, of the weight by one product."""
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        stride, padding = ctx.about  # type: ignore[attr-defined]
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            of_images = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [True, False, False]
            )[0]
        return of_images, weight_gradient(x, gradient, weight.shape[-1], stride, padding), None, None


def weight_gradient(x: Tensor, gradient: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Of a square filter, summed over images and places. (B, I, H, W), (B, O, h, w) -> (O, I, k, k)."""
    images, channels_in, height, width = x.shape
    _, channels_out, h, w = gradient.shape
    padded = x.new_zeros(images, height + 2 * padding, width + 2 * padding, channels_in)
    padded[:, padding : padding + height, padding : padding + width] = x.permute(0, 2, 3, 1)
    by_image, by_row, by_place, _ = padded.stride()
    # what each place of the output has seen: k rows of k * I numbers that lie together
    seen = padded.as_strided(
        (images, h, w, kernel, kernel * channels_in), (by_image, stride * by_row, stride * by_place, by_row, 1)
    ).reshape(images * h * w, -1)
    product = gradient.permute(0, 2, 3, 1).reshape(-1, channels_out).t() @ seen  # (O, k * k * I)
    return product.view(channels_out, kernel, kernel, channels_in).permute(0, 3, 1, 2)


def _is_plain(convolution: nn.Conv2d) -> bool:
    """A square filter of one group that is moved alike in both directions, over zeros at the border."""
    square = all(len(set(pair)) == 1 for pair in (convolution.kernel_size, convolution.stride, convolution.padding))
    whole = convolution.groups == 1 and set(convolution.dilation) == {1} and convolution.padding_mode == "zeros"
    return square and whole and isinstance(convolution.padding, tuple)
