"""Attention weights of a transformer against their definition."""

import math

import pytest
import torch

from ssl_app.errors import SettingsError
from ssl_app.models.attention import attention_weights
from ssl_app.models.backbones import build
from ssl_app.models.backbones.vit_tiny import BLOCKS, HEADS, WIDTH


def test_weights_are_the_softmax_of_queries_and_keys_mean_over_heads() -> None:
    torch.manual_seed(0)
    network = build("vit-tiny", 1, 32).eval()
    images = torch.randn(2, 1, 32, 32)
    found = attention_weights(network, images)
    assert found.shape == (2, BLOCKS, 64, 64)
    block = network.body.block1
    tokens = block.ln_1(network.embed(images))
    queries, keys, _ = (tokens @ block.self_attention.in_proj_weight.t() + block.self_attention.in_proj_bias).chunk(
        3, -1
    )
    queries, keys = (one.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2) for one in (queries, keys))
    expected = (queries @ keys.transpose(2, 3) / math.sqrt(WIDTH // HEADS)).softmax(3).mean(1)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(3), torch.ones(2, BLOCKS, 64), atol=1e-5, rtol=0)


def test_reading_changes_nothing() -> None:
    network = build("vit-tiny", 1, 32).eval()
    images = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(images)
        attention_weights(network, images)
        assert torch.equal(before, network(images))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_network_without_tokens_has_none() -> None:
    with pytest.raises(SettingsError, match="has no tokens"):
        attention_weights(build("nin", 1, 16), torch.zeros(1, 1, 16, 16))
