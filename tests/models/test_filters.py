"""First-layer filters, on pixels too."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from ssl_app.errors import SettingsError
from ssl_app.models.backbones import Backbone, build
from ssl_app.models.filters import first_filters


def test_filters_are_the_weights_of_the_first_convolution() -> None:
    network = build("nin", 3, 16)
    found = first_filters(network)
    assert torch.equal(found.weights, network.body.block1[0].weight)
    assert found.on_pixels is None


def test_a_filter_through_sobel_gives_on_gray_pixels_what_the_network_computes() -> None:
    torch.manual_seed(0)
    network = build("nin+sobel", 3, 16)
    found = first_filters(network)
    assert found.on_pixels is not None
    assert found.on_pixels.shape == (192, 1, 7, 7)
    images = torch.rand(2, 3, 16, 16)
    computed = functional.conv2d(network.front(images), network.body.block1[0].weight)  # no padding: inner places
    composed = functional.conv2d(images.mean(1, keepdim=True), found.on_pixels)
    torch.testing.assert_close(computed[:, :, 1:-1, 1:-1], composed, atol=1e-5, rtol=1e-4)


def test_a_network_without_convolutions_has_no_filters() -> None:
    with pytest.raises(SettingsError, match="plain has no convolution"):
        first_filters(Backbone("plain", 1, 4, nn.Sequential(nn.Flatten(), nn.Linear(16, 4))))
