import warnings
from pathlib import Path

from PIL import Image

from ssl_app.report import curves

HISTORY = [
    {"loss": 1.0, "nmi_labels": 0.1, "ami_labels": 0.05},
    {"loss": 0.9},
    {"loss": 0.8, "nmi_labels": 0.3, "ami_labels": 0.2, "nmi_before": 0.6, "ami_before": 0.5},
]


def row(k: int, score: float) -> dict[str, object]:
    return {"k": k, "train": {"nmi": score, "ami": score / 2, "nmi_by_chance": 0.01 * k}}


def test_epochs_with_new_clusters_are_the_curves() -> None:
    assert curves.of_history(HISTORY) == {
        "epoch": [1, 3],
        "nmi_labels": [0.1, 0.3],
        "ami_labels": [0.05, 0.2],
        "nmi_before": [None, 0.6],
        "ami_before": [None, 0.5],
    }
    assert curves.of_history([{"loss": 1.0}]) is None
    assert curves.of_history([]) is None


def test_the_ends_of_the_curves_in_words() -> None:
    found = curves.of_history(HISTORY)
    assert found is not None
    assert curves.sentences(found) == [
        "clusters against labels: NMI in epoch 1 0.100 (AMI 0.050) and in epoch 3 0.300 (AMI 0.200)",
        "clusters against the epoch before: NMI in epoch 3 0.600 (AMI 0.500)",
    ]


def test_what_there_is_is_drawn_without_a_warning(tmp_path: Path) -> None:
    found = curves.of_history(HISTORY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves.draw(tmp_path / "all.png", found, [row(2, 0.2), row(16, 0.4)], [row(2, 0.1), row(16, 0.2)])
        curves.draw(tmp_path / "k.png", None, [row(2, 0.2), row(16, 0.4)], [])
        curves.draw(tmp_path / "epochs.png", found, [row(2, 0.2)], [])
    widths = []
    for name in ("k", "epochs", "all"):
        with Image.open(tmp_path / f"{name}.png") as image:
            widths.append(image.width)
    assert widths == sorted(set(widths)), "one, two and three panels"
