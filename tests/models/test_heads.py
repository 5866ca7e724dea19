import pytest
import torch

from ssl_app.errors import SettingsError
from ssl_app.models.heads import build_head, pooled_side


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize(("shape", "width"), [((256,), 256), ((192, 8, 8), 3072), ((512, 1, 1), 512)])
def test_a_head_takes_vectors_and_maps(kind, shape, width):
    torch.manual_seed(0)
    head = build_head(kind, shape, 5)
    features = torch.randn(4, *shape)
    pooled = head.pool(features)
    assert pooled.shape == (4, width) == (4, head.features)
    assert head(features).shape == (4, 5)
    assert torch.equal(head.pool(pooled), pooled)
    assert head.last.out_features == 5


def test_pooling_is_the_finest_grid_within_4096_numbers():
    assert pooled_side(256, 13, 13) == 4
    assert pooled_side(32, 64, 64) == 11
    assert pooled_side(512, 2, 2) == 2
    assert pooled_side(8192, 7, 7) == 1
    assert pooled_side(16, 3, 9) == 3


def test_the_first_loss_is_that_of_knowing_nothing():
    torch.manual_seed(0)
    for kind in ("linear", "mlp"):
        head = build_head(kind, (256,), 10)
        loss = torch.nn.functional.cross_entropy(head(torch.randn(64, 256)), torch.arange(64) % 10)
        assert abs(loss.item() - 2.303) < 0.2


def test_the_mlp_has_three_fully_connected_layers():
    linear = [module for module in build_head("mlp", (4096,), 7).layers if isinstance(module, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [2048, 2048, 7]


def test_another_head_is_told_the_nearest():
    with pytest.raises(SettingsError) as error:
        build_head("linaer", (256,), 5)
    assert str(error.value) == "no head is named 'linaer'; did you mean 'linear'?"
