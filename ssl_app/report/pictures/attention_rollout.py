"""Attention rollout: from where a vision transformer takes its features (Abnar and Zuidema, 2020)."""

from functools import partial
from pathlib import Path

from ssl_app.evaluation.attention import rollout
from ssl_app.models.attention import attention_weights
from ssl_app.report.grid import Grid
from ssl_app.report.pictures.base import Picture, Subject, as_array, heated_rows, to_unit

IMAGES = 6


class AttentionRollout(Picture):
    """Images down; each image, and the rollout up to each block, across."""

    def draw(self, subject: Subject, folder: Path) -> list[Path]:
        """`attention-rollout.png`. Raises SettingsError for a network that is not on tokens."""
        subject.backbone.tokens()
        images = subject.examples(IMAGES)
        weights = as_array(subject.map(partial(attention_weights, subject.backbone), images))  # (n, L, T, T)
        blocks, tokens = weights.shape[1], weights.shape[-1]
        side = round(tokens**0.5)
        # the features are the mean over tokens, so a patch counts by its mean share in them
        shares = [[rollout(one[:block]).mean(0) for one in weights] for block in range(1, blocks + 1)]  # each (T,)
        most = max(float(share.max()) for share in shares[-1]) * tokens
        about = (
            "From which patches the mean over all tokens takes its features, along all paths through the blocks up "
            "to this one; half of what a block gives comes past its attention. Bright is the patch that counts most, "
            f"dark the one that counts least; after the last block, the most is {most:.1f} times the mean."
        )
        heads = ["image", *(f"block {block}" for block in range(1, blocks + 1))]
        grid = Grid(f"Attention rollout of {subject.name}", about, heads, [*map(subject.caption, images)])
        maps = [[to_unit(share[-(side**2) :].reshape(side, side)) for share in each] for each in shares]
        tiles = heated_rows(subject.pictures(images), maps)
        return [grid.sheet(tiles, subject.tile).save(folder / "attention-rollout.png")]
