"""Task: what the training loop needs to know of a job, and all that it knows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from ssl_app.data.batch import Batch

Metrics = dict[str, Tensor]
Ask = Callable[[Batch], Tensor]  # one row an image, (B, ...)


class OverAll(Protocol):
    """Every image asked at once, without gradients: unaugmented and in eval mode, or `as_trained`.

    Under several processes `share` and `total` let each keep its own rows, where all of them are too many.
    """

    def __call__(self, ask: Ask, *, as_trained: bool = False) -> Tensor:
        """The answer of every image, in dataset order, (N, ...)."""
        ...

    def share(self, ask: Ask, *, as_trained: bool = False) -> Tensor:
        """The answers of this process's images, a contiguous piece, (n, ...)."""
        ...

    def join(self, rows: Tensor) -> Tensor:
        """The rows of every process's images, in dataset order. (n, ...) -> (N, ...)."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes, the same in all."""
        ...


@dataclass(frozen=True)
class Needs:
    """What a task asks of the images; checked before a run starts."""

    views: int = 1  # augmentations of each image in a batch
    channels: int | None = None  # exactly so many; None: any number
    value_range: Literal["standard", "symmetric"] = "standard"  # mean 0 and deviation 1, or [-1, 1]
    smallest_image: int = 1  # pixels
    smallest_batch: int = 1  # images of one call of loss
    true_colors: bool = False  # no augmentation may change them


@dataclass(frozen=True)
class Limits:
    """Scores on held-out images between which a pretext task teaches something."""

    trivial: float  # reached within the first third of the schedule: a shortcut answers it
    impossible: float  # not reached after the first third: these images hold no answer


class Task(nn.Module):
    """One batch in, one loss out. What must survive a resume is a parameter or a buffer."""

    players: ClassVar[tuple[str, ...]] = ("main",)  # each has its own optimizer; a GAN has two
    needs: ClassVar[Needs] = Needs()

    def parts(self) -> Mapping[str, nn.Module]:
        """The modules that a learning rate can be given to, by name; together they hold every parameter."""
        return {"all": self}

    def loss(self, batch: Batch, player: str) -> tuple[Tensor, Metrics]:
        """Mean loss over the batch, (), and scalars worth a curve, each (), detached."""
        raise TypeError(f"{type(self).__name__} defines no loss")

    def parameters_of(self, player: str) -> Iterable[nn.Parameter]:
        """The parameters that one player moves; all of them where there is one player."""
        return self.parameters()

    def start_epoch(self, epoch: int, over_all: OverAll) -> Metrics:
        """Called before the first step of each epoch (from 0)."""
        return {}

    def before_step(self, progress: float, over_all: OverAll) -> Metrics:
        """Called before each step; progress counts epochs in fractions (SeLa relabels at .04, .16, .37 ...)."""
        return {}

    def finish(self, over_all: OverAll) -> None:
        """Called after the last epoch, again where a run is resumed from there: what to set right at the end."""

    def sampling_weights(self) -> Tensor | None:
        """How often each image is drawn in the next epoch, (N,), in proportion; None: each once a pass."""
        return None

    def renewed(self) -> Iterable[nn.Parameter]:
        """Parameters begun anew, in place, since this was last asked; the loop forgets their optimizer state."""
        return ()
