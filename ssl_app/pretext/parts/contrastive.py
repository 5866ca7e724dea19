"""What methods that compare two views of an image share: their random views, the projection head, and its metrics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import albumentations as A
import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_app.data.transforms import Augmentation, Frame, MixedImages, Pipeline, crop, mirrored
from ssl_app.errors import Change, Fix, Notice
from ssl_app.models.backbones import Backbone

EMBEDDING = 128  # numbers, as in FaceNet and SimCLR
WIDEST = 2048  # of a hidden layer before them
LEAST_STD = 0.1  # of embeddings, below which they have collapsed
# The loss of a batch of 128 stays near ln 255 for hundreds of steps. Chest X-rays, strong views, label propagation at
# 8 labels per class: .634 after about 490 steps, as scratch; .697 after 1,460. Steel, mixed views, kNN: .876 after
# 300 steps, .950 after 800, random weights .766 (small ResNet at 64 px)
LEAST_STEPS = 500
HUE = 0.2  # of the jitter; SimCLR: .2 of .8


@dataclass(frozen=True)
class ViewStrength:
    """How far two views of an image may differ."""

    least_area: float  # of a crop, share of the image
    jitter: float  # of brightness and contrast, as factors in 1 +- jitter
    gamma: float  # gamma in exp(+- gamma)
    blur: float  # probability
    noise: float  # largest standard deviation, of [0, 1]


# Strong hides exposure, which on gray images would give a pair away: right for radiographs, wrong for textures whose
# classes differ by contrast. Mixed, some images strong and some light, is near the better of the two on both. Label
# propagation at 8 labels per class, 10 draws: steel strong .877, light .925, mixed .930; chest X-rays strong .697,
# mixed .714 (small ResNet at 64 px, 10 minutes of one core, one pretraining each, mixed with a fifth more epochs).
STRENGTHS = {
    "light": ViewStrength(least_area=0.2, jitter=0.2, gamma=0.0, blur=0.0, noise=0.0),
    "medium": ViewStrength(least_area=0.15, jitter=0.4, gamma=0.25, blur=0.15, noise=0.015),
    "strong": ViewStrength(least_area=0.1, jitter=0.6, gamma=0.5, blur=0.3, noise=0.03),
}


def views_of(frame: Frame, name: str) -> Augmentation:
    """Views of a strength by its name; mixed: of each image strong or light ones, equally often."""
    if name == "mixed":
        return MixedImages(*(contrastive_views(frame, STRENGTHS[one]) for one in ("strong", "light")))
    return contrastive_views(frame, STRENGTHS[name])


def contrastive_views(frame: Frame, strength: ViewStrength) -> Augmentation:
    """Random crop, flip, brightness, contrast, gamma, blur, noise; with three channels color and grays too."""
    one = strength
    steps: list[A.BasicTransform] = [crop(frame, one.least_area), *mirrored(frame)]
    if frame.channels == 3:
        steps += [A.ColorJitter(one.jitter, one.jitter, one.jitter, HUE * one.jitter, p=0.8), A.ToGray(p=0.2)]
    elif frame.channels == 1:
        steps.append(A.ColorJitter(one.jitter, one.jitter, 0.0, 0.0, p=0.8))
    else:  # with any other number of channels a factor is all there is
        steps.append(A.RandomBrightnessContrast(brightness_limit=0.0, contrast_limit=one.jitter, p=0.8))
    if one.gamma:
        limits = (100 * math.exp(-one.gamma), 100 * math.exp(one.gamma))
        steps.append(A.RandomGamma(gamma_limit=limits, p=1.0))
    if one.blur:
        steps.append(A.GaussianBlur(blur_limit=(3, 5), p=one.blur))
    if one.noise:
        steps.append(A.GaussNoise(std_range=(0.0, one.noise), p=1.0))
    return Pipeline(frame, steps)


def projector(backbone: Backbone, embedding: int = EMBEDDING, hidden: int | None = None) -> nn.Sequential:
    """The head that is trained on and thrown away: two layers with batch norm between. (B, D) -> (B, E)."""
    features = math.prod(backbone.shape())
    width = hidden or min(WIDEST, max(EMBEDDING, 2 * features))
    return nn.Sequential(
        nn.Linear(features, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, embedding),
    )


def nt_xent(embedding: Tensor, index: Tensor, temperature: float) -> Tensor:
    """NT-Xent: cross-entropy of finding the partner among all other views (arXiv:2002.05709, section 2.1).

    `embedding` is (2B, E) of length 1, all first views and then all second ones; `index` (B,) names the images:
    views of the same image are never negatives, however often a small set has it in one batch. -> ().
    """
    logits = embedding @ embedding.t() / temperature  # (2B, 2B)
    partner = partners(len(index), index.device)
    same = same_image(index).scatter(1, partner[:, None], False)  # a view itself, and its image's further views
    return functional.cross_entropy(logits.masked_fill(same, -math.inf), partner)


def partners(count: int, device: torch.device) -> Tensor:
    """Where the other view of each view stands. -> (2B,)."""
    return torch.arange(2 * count, device=device).roll(count)


def same_image(index: Tensor) -> Tensor:
    """Which views are of one image. (B,) -> (2B, 2B)."""
    twice = index.repeat(2)
    return twice[:, None] == twice


def retrieval(embedding: Tensor, index: Tensor) -> Tensor:
    """Share of views that find their image first among the views of the other kind. (2B, E), (B,) -> ()."""
    first, second = embedding.chunk(2)
    nearness = first @ second.t()  # (B, B)
    found = torch.stack([nearness.argmax(1), nearness.argmax(0)])
    return (index[found] == index).float().mean()


def embedding_std(embedding: Tensor) -> Tensor:
    """Standard deviation of a coordinate times sqrt(E): 0 where all lie in one point, 1 all over the sphere."""
    return embedding.std(0, correction=0).mean() * math.sqrt(embedding.shape[1])


def collapsed(name: str, history: Sequence[Mapping[str, float]], *fixes: Fix) -> Notice | None:
    """Of a method's embeddings that lie in one point after its last epoch, by its metric `embedding_std`."""
    found = history[-1]["embedding_std"]
    if found >= LEAST_STD:
        return None
    what = f"the embeddings of {name} have collapsed: after epoch {len(history)} their std is {found:.3f}, of 1"
    return Notice(what, fixes=(Change("lr", "a smaller"), *fixes))


def nearest_pictures(images: Tensor, embedding: Tensor, most: int = 5) -> Tensor | None:
    """In each row an image and those of the others nearest to it. (B, C, S, S), (B, E) -> (B, m + 1, C, S, S)."""
    count = min(most, len(images) - 1)
    if count < 1:
        return None
    nearness = (embedding @ embedding.t()).fill_diagonal_(-math.inf)
    nearest = nearness.topk(count, 1).indices  # (B, m)
    return torch.cat([images[:, None], images[nearest]], 1)
