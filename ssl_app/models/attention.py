"""Attention of a vision transformer: how much each token of a block takes from each token below it."""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_app.errors import Set, SettingsError
from ssl_app.models.backbones import Backbone


@torch.no_grad()
def attention_weights(backbone: Backbone, images: Tensor) -> Tensor:
    """Weights of every block, first block first, mean over heads. (B, C, S, S) -> (B, L, T, T), rows sum to 1.

    Raises SettingsError for a network that is not on tokens, or without nn.MultiheadAttention.
    """
    blocks = [module for module in backbone.tokens().modules() if isinstance(module, nn.MultiheadAttention)]
    if not blocks:
        raise SettingsError(
            f"{backbone.name} has no nn.MultiheadAttention to read weights from", fix=Set("backbone", "vit-tiny")
        )
    found: list[Tensor] = []

    def with_weights(module: nn.Module, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return inputs, named | {"need_weights": True, "average_attn_weights": True}

    def keep(module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        found.append(output[1].float())

    handles = [block.register_forward_pre_hook(with_weights, with_kwargs=True) for block in blocks]
    handles += [block.register_forward_hook(keep) for block in blocks]
    try:
        backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(found, 1)
