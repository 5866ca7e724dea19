"""Task: what the training loop needs to know of a job, and all that it knows."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor, nn

from ssl_app.data.batch import Batch

Metrics = dict[str, Tensor]
BatchFunction = Callable[[Batch], Tensor]  # one row an image, (B, ...)


class DatasetMap(Protocol):
    """Applies a function to every training image without gradients: center crops in eval mode, or `as_trained`.

    Under several processes `local` and `all_reduce` let each keep its own rows, where all of them are too many.
    """

    def __call__(self, fn: BatchFunction, *, as_trained: bool = False) -> Tensor:
        """The result of every image, in dataset order, (N, ...)."""
        ...

    def local(self, fn: BatchFunction, *, as_trained: bool = False) -> Tensor:
        """The results of this process's images, a contiguous piece, (n, ...)."""
        ...

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows of every process's images, in dataset order. (n, ...) -> (N, ...)."""
        ...

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum over the processes, the same in all."""
        ...


@dataclass(frozen=True)
class Needs:
    """What a task requires of the images; checked before a run starts."""

    views: int = 1  # augmentations of each image in a training batch
    scoring_views: int = 0  # augmentations of each validation image; 0: its center crop
    channels: int | None = None  # exactly so many; None: any number
    value_range: Literal["standard", "symmetric"] = "standard"  # mean 0 and deviation 1, or [-1, 1]
    smallest_image: int = 1  # pixels
    smallest_batch: int = 1  # images of one call of loss
    keeps_colors: bool = False  # no augmentation may change them
    keeps_orientation: bool = False  # no augmentation may flip images vertically


@dataclass(frozen=True)
class ScoreLimits:
    """Validation scores between which a pretext task teaches something."""

    too_easy: float  # reached within the first third of the schedule: a shortcut solves it
    no_signal: float  # not reached after the first third: these images hold no usable signal


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

    def start_epoch(self, epoch: int, map_dataset: DatasetMap) -> Metrics:
        """Called before the first step of each epoch (from 0)."""
        return {}

    def before_step(self, progress: float, map_dataset: DatasetMap) -> Metrics:
        """Called before each step; progress counts epochs in fractions (SeLa relabels at .04, .16, .37 ...)."""
        return {}

    def finish(self, map_dataset: DatasetMap) -> None:
        """Called after the last epoch, again where a run is resumed from there: what to set right at the end."""

    def sampling_weights(self) -> Tensor | None:
        """How often each image is drawn in the next epoch, (N,), in proportion; None: each once a pass."""
        return None

    def without_momentum(self) -> Iterable[nn.Parameter]:
        """Parameters that SGD moves without momentum: those that are reinitialized before it has any use."""
        return ()

    def reinitialized(self) -> Iterable[nn.Parameter]:
        """Parameters reinitialized in place since the last call; the loop forgets their optimizer state."""
        return ()
