"""Progressive resizing: the first steps train on images of half the side, the last ones on all of it.

The name and the idea are fast.ai's (Howard et al., 2018). A quarter of the pixels takes about a third of the time, so
that more images are seen in it. SimCLR on chest X-rays, small ResNet at 64 px, 600 seconds of one core, one
pretraining each: 15 epochs in full, .634 by label propagation at 8 labels per class and .729 with all; with the first
80 % of the time at 32 px 45 epochs, .697 and .766.
"""

from dataclasses import dataclass, replace

from ssl_app.data.batch import half
from ssl_app.errors import Set, SettingsError, count_of
from ssl_app.models.backbones import Backbone

FULL_STEPS = 30  # of full size at the end, after which .9^30 = 4 % of the batch-norm statistics are from before


@dataclass(frozen=True)
class Usual:
    """What is done where the user requests nothing."""

    share: float  # of the steps, at half the side
    least_side: int  # pixels, of the images in full; smaller ones are trained on as they are


@dataclass(frozen=True)
class Resizing:
    """Which share of the steps, the first ones, trains at half the side, and why."""

    share: float
    reason: str
    chosen: bool = False  # by the user

    @classmethod
    def decide(
        cls, requested: float | None, usual: Usual, backbone: Backbone, against: str | None = None
    ) -> "Resizing":
        """The share that the user requests, else the usual one where the images and the network allow it.

        `against` is what else speaks against it. Raises SettingsError where a request cannot be met.
        """
        if requested == 0:
            return cls(0.0, "as set", chosen=True)
        if requested is None and backbone.image_size < usual.least_side:
            against = f"images below {usual.least_side} px are quick as they are"
        against = against or _against(backbone)
        if requested is not None:
            if against is not None:
                raise SettingsError(f"no steps at half the side: {against}", fix=Set("progressive_resizing", 0))
            return cls(requested, "as set", chosen=True)
        if against is not None:
            return cls(0.0, against)
        return cls(usual.share, "at half the side a step takes about a third of the time")

    def within(self, steps: int) -> "Resizing":
        """The same, but off where so many steps leave too few of full size, unless the user chose it."""
        if self.chosen or not self.share or steps - round(self.share * steps) >= FULL_STEPS:
            return self
        return replace(
            self,
            share=0.0,
            reason=f"{count_of(steps, 'step')} {'is' if steps == 1 else 'are'} too few to begin at half the side",
        )

    def sentence(self, image_size: int) -> str:
        """`resolution: 32 px for the first 92 % of the steps, then 64 px (why)`."""
        how = f"{image_size} px in all steps"
        if self.share:
            how = f"{half(image_size)} px for the first {100 * self.share:.3g} % of the steps, then {image_size} px"
        return f"resolution: {how} ({self.reason})"


def _against(backbone: Backbone) -> str | None:
    """What makes half of the side impossible."""
    side = half(backbone.image_size)
    return None if backbone.accepts(side) else f"{backbone.name} for {backbone.image_size} px does not suit {side} px"
