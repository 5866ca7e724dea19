"""What the layers of a frozen backbone are worth, as tables of text: each row with random weights under it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_app.evaluation.layer import KINDS
from ssl_app.evaluation.retrieval import RANKS

Measured = Mapping[str, Mapping[str, Any]]  # by layer, as evaluation.layer.measure has it
RANDOM = "  random"  # under a layer: the same of random weights
MOST_CLASSES = 40  # of the table of classes; result.json has all


def scores(found: Measured, random: Measured) -> list[str]:
    """Balanced accuracy and accuracy of nearest neighbors and of the linear probe."""
    header = ["layer", "numbers", *(cell for name in KINDS.values() for cell in (name, "accuracy"))]

    def row(name: str, one: Mapping[str, Any]) -> list[str]:
        cells = (
            (_with_interval(one[kind], "balanced_accuracy", ""), _figure(one[kind]["accuracy"])) for kind in KINDS
        )
        return [name, str(one["features"]), *(cell for pair in cells for cell in pair)]

    return _table([header, *_paired(found, random, row)])


def retrieved(found: Measured, random: Measured) -> list[str]:
    """Mean average precision and precision at 1, 5 and 10, with what a random order has in the last row."""
    header = ["layer", "mAP", *(f"precision at {k}" if k == RANKS[0] else f"at {k}" for k in RANKS)]

    def row(name: str, one: Mapping[str, Any]) -> list[str]:
        numbers = one["retrieval"]
        return [name, *(_with_interval(numbers, key) for key in ("map", *(f"precision_{k}" for k in RANKS)))]

    any_one = next(iter(found.values()))["retrieval"]
    at_random = _figure(any_one["precision_by_chance"])
    chance = ["chance", _figure(any_one["map_by_chance"]), *(at_random for _ in RANKS)]
    return _table([header, *_paired(found, random, row), chance])


def clustered(found: Measured, random: Measured) -> list[str]:
    """Agreement of k-means with the classes, one row for each layer and K."""
    header = ["layer", "K", "NMI", "by chance", "AMI", "ARI", "AMI on train"]
    rows = [header]
    for layer, one in found.items():
        theirs = random.get(layer, {}).get("clusters", ())
        for number, numbers in enumerate(one["clusters"]):
            rows.append(_agreement(layer, numbers))
            rows += [_agreement(RANDOM, theirs[number])] if theirs else []
    return _table(rows)


def classes(layer: str, found: Measured, random: Measured) -> list[str]:
    """Precision and recall of each class by the linear probe of a layer."""
    beside = layer in random
    header = ["class", "n", "precision", "recall", *(["precision, random", "recall, random"] if beside else [])]
    ours = found[layer]["per_class"]
    rows = [header]
    for number, one in enumerate(ours[:MOST_CLASSES]):
        both = [one, *([random[layer]["per_class"][number]] if beside else [])]
        figures = [_figure(each[key]) for each in both for key in ("precision", "recall")]
        rows.append([one["class"], str(one["n"]), *figures])
    left = len(ours) - MOST_CLASSES
    return _table(rows) + ([f"and {left} more classes in result.json"] if left > 0 else [])


def choice(found: Measured, best: Mapping[str, str | None], last: str, held: int) -> str:
    """Which layer is best by each measure on what was held out of train, beside the last."""
    if None in best.values():
        return "no best layer: nothing can be held out of so few training images"
    named = [
        f"{best[kind]} by {name} ({_held(found, best[kind], kind)}; {last} {_held(found, last, kind)})"
        for kind, name in KINDS.items()
    ]
    return f"best on {held} held-out training images, not on test: {', '.join(named)}"


def _held(found: Measured, layer: str | None, kind: str) -> str:
    return _figure(found[str(layer)][kind]["held_out"])


def _agreement(name: str, one: Mapping[str, Any]) -> list[str]:
    figures = [_figure(one[key]) for key in ("nmi", "nmi_by_chance")]
    return [
        name,
        str(one["k"]),
        *figures,
        _with_interval(one, "ami"),
        _figure(one["ari"]),
        _figure(one["train"]["ami"]),
    ]


def _paired(found: Measured, random: Measured, row: Any) -> list[list[str]]:
    rows = []
    for layer, one in found.items():
        rows.append(row(layer, one))
        rows += [row(RANDOM, random[layer])] if layer in random else []
    return rows


def _with_interval(numbers: Mapping[str, Any], key: str, prefix: str | None = None) -> str:
    """`0.812 [0.790, 0.833]`; `prefix` is that of the limits' names, the key's own without it."""
    start = f"{key}_" if prefix is None else prefix
    low, high = numbers[f"{start}low"], numbers[f"{start}high"]
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return f"{_figure(numbers[key])}{interval}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with their columns aligned; numbers of one word to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [all(row[at].replace(".", "").isdigit() for row in rows[1:]) for at in range(len(widths))]
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]
