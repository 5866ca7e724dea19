"""Progressive resizing: most steps train on images of half the side, the last ones on all of it.

The name and the idea are fast.ai's (Howard et al., 2018). A quarter of the pixels takes about a third of the time, so
that more images are seen in it. SimCLR on chest X-rays, small ResNet at 64 px, 600 seconds of one core, one
pretraining each: 15 epochs in full, .634 by label propagation at 8 labels per class and .729 with all; with the first
80 % of the time at 32 px 45 epochs, .697 and .766.
"""

from dataclasses import dataclass, replace

from ssl_app.data.batch import half
from ssl_app.errors import Set, SettingsError
from ssl_app.models.backbones import Backbone
from ssl_app.pretext.base import Pretext

# of the steps. They take 79 to 82 % of the time: a view of the small ResNet takes .86 ms at 32 px and 2.71 ms at 64
# (bf16, one core of an AMD EPYC), .4 of the time in a whole training beside others
SHARE = 0.92
LEAST_SIDE = 48  # pixels; of smaller images half is too little to learn from, and they are quick as they are
FULL_STEPS = 30  # of full size at the end, after which .9^30 = 4 % of the batch-norm statistics are from before


@dataclass(frozen=True)
class Resizing:
    """Which share of the steps, the first ones, trains at half the side, and why."""

    share: float
    reason: str
    chosen: bool = False  # by the user

    @classmethod
    def decide(
        cls, requested: float | None, name: str, method: type[Pretext[object]], backbone: Backbone
    ) -> "Resizing":
        """By what the user requests, else by the method, the images and the network.

        Raises SettingsError where the request cannot be met.
        """
        if requested == 0:
            return cls(0.0, "as set", chosen=True)
        small = requested is None and backbone.image_size < LEAST_SIDE
        against = f"images below {LEAST_SIDE} px are quick as they are" if small else _against(name, method, backbone)
        if requested is not None:
            if against is not None:
                raise SettingsError(f"no steps at half the side: {against}", fix=Set("progressive_resizing", 0))
            return cls(requested, "as set", chosen=True)
        if against is not None:
            return cls(0.0, against)
        return cls(SHARE, "at half the side a step takes about a third of the time")

    def within(self, steps: int) -> "Resizing":
        """The same, but off where so many steps leave too few of full size, unless the user chose it."""
        if self.chosen or not self.share or steps - round(self.share * steps) >= FULL_STEPS:
            return self
        return replace(self, share=0.0, reason=f"{steps:,} steps are too few to begin at half the side")

    def sentence(self, image_size: int) -> str:
        """`resolution: 32 px for the first 92 % of the steps, then 64 px (why)`."""
        how = f"{image_size} px in all steps"
        if self.share:
            how = f"{half(image_size)} px for the first {100 * self.share:.3g} % of the steps, then {image_size} px"
        return f"resolution: {how} ({self.reason})"


def _against(name: str, method: type[Pretext[object]], backbone: Backbone) -> str | None:
    """What makes half of the side impossible."""
    side = half(backbone.image_size)
    if not method.progressive_resizing:
        return f"{name} depends on the size of its images"
    return None if backbone.accepts(side) else f"{backbone.name} for {backbone.image_size} px does not suit {side} px"
