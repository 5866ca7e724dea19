"""Which classes a classifier knows: a table, the confusion matrix, and the images it is most often wrong about."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssl_app.evaluation.metrics import confusion
from ssl_app.report.blocks import bullets, count, paragraph, percent
from ssl_app.report.markup import Markup, join, tag

MOST_CLASSES = 25  # of a matrix that can be read; of more the commonest confusions are listed
MOST_MISTAKES = 24
SHADES = 8  # of the matrix


@dataclass(frozen=True)
class Mistake:
    """An image that was wrongly classified by some trials."""

    image: int  # its place among the test images
    truth: int
    predicted: int  # the class that was most often predicted wrongly
    wrong: int  # trials
    of: int
    confidence: float  # mean probability of that class in those trials


def matrix_of(
    predictions: Sequence[NDArray[np.float16]], labels: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Counts over all trials, true class by predicted class, (K, K)."""
    found: NDArray[np.int64] = np.sum([confusion(labels, one.argmax(axis=1), classes) for one in predictions], axis=0)
    return found


def mistakes(predictions: Sequence[NDArray[np.float16]], labels: NDArray[np.int64]) -> list[Mistake]:
    """Images that any trial was wrong about: those first that most were wrong about, and the surest of these."""
    chosen = np.stack([one.argmax(axis=1) for one in predictions])  # (T, N)
    sure = np.stack([one.max(axis=1) for one in predictions]).astype(np.float64)
    wrong = chosen != labels  # (T, N)
    found = []
    for image in np.flatnonzero(wrong.any(axis=0)).tolist():
        guesses = chosen[wrong[:, image], image]
        commonest = int(np.bincount(guesses).argmax())
        those = sure[chosen[:, image] == commonest, image]
        truth, trials = int(labels[image]), int(wrong[:, image].sum())
        found.append(Mistake(image, truth, commonest, trials, len(chosen), float(those.mean())))
    return sorted(found, key=lambda one: (-one.wrong, -one.confidence, one.image))


def matrix(counts: NDArray[np.int64], classes: Sequence[str]) -> Markup:
    """The confusion matrix in percent of the true class; of many classes a list of the commonest confusions."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if len(classes) > MOST_CLASSES:
        return _list(counts, shares, classes)
    corner = tag("th", "true ↓ predicted →", scope="col", class_="corner")
    head = [tag("th", tag("span", name), scope="col", class_="turned", title=name) for name in classes]
    rows = []
    for k, name in enumerate(classes):
        cells = []
        for j, other in enumerate(classes):
            words = f"{name} predicted as {other}: {counts[k, j]:,} of {counts[k].sum():,}"
            shown = f"{100 * shares[k, j]:.0f}" if counts[k, j] else ""
            kind = f"heat h{round(float(shares[k, j]) * SHADES)}{' own' if j == k else ''}"
            cells.append(tag("td", shown, class_=kind, title=words))
        rows.append(tag("tr", tag("th", name, scope="row"), *cells))
    held = tag("table", tag("thead", tag("tr", corner, *head)), tag("tbody", *rows), class_="matrix")
    note = paragraph("Percent of the images of the true class; a row adds up to 100.", quiet=True)
    return join([note, tag("div", held, class_="scroll", tabindex=0)])


def _list(counts: NDArray[np.int64], shares: NDArray[np.float64], classes: Sequence[str]) -> Markup:
    """The commonest confusions, in words."""
    off = counts * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-off, axis=None, kind="stable")[:MOST_MISTAKES]
    pairs = [divmod(int(place), len(classes)) for place in order if off.flat[place]]
    lines = [
        f"{classes[k]} predicted as {classes[j]}: {percent(float(shares[k, j]))} % of {counts[k].sum():,}"
        for k, j in pairs
    ]
    return join([paragraph(f"The commonest confusions of {len(classes)} classes.", quiet=True), bullets(lines)])


def gallery(
    found: Sequence[Mistake], classes: Sequence[str], paths: Sequence[str] | None, pictures: Sequence[Markup] | None
) -> Markup:
    """Mistakes as pictures with what was predicted; without pictures, their names."""
    cards = []
    for number, one in enumerate(found):
        who = paths[one.image] if paths is not None else f"test image {one.image + 1}"
        times = f", in {one.wrong} of {one.of} trials" if one.of > 1 else ""
        lines = [
            tag("p", tag("span", "true ", class_="quiet"), tag("b", classes[one.truth])),
            tag("p", tag("span", "predicted ", class_="quiet"), tag("b", classes[one.predicted])),
            tag("p", f"{percent(one.confidence)} % sure{times}", class_="quiet"),
            tag("p", who, class_="quiet path"),
        ]
        shown = pictures[number] if pictures is not None else None
        cards.append(tag("figure", shown, tag("figcaption", *lines), class_="mistake"))
    return tag("div", *cards, class_="gallery") if cards else Markup("")


def mistakes_sentence(all_of: int, shown: int, images: int, trials: int) -> str:
    """How many there are, and which are shown."""
    found = f"{count(all_of, 'image')} of {images:,}"
    if trials > 1:
        return (
            f"{found} were wrongly classified by one trial or more; the {shown} shown are those most often wrong, "
            "the surest first."
        )
    which = "the surest come first" if shown == all_of else f"the {shown} shown are those that it was surest of"
    return f"{found} were wrongly classified; {which}."
