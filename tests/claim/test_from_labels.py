"""From labels: each image learns its label in the file; images without one are not drawn."""

from pathlib import Path

import pytest
import torch

from ssl_app.data.batch import Batch
from ssl_app.errors import DataError, SettingsError, UserError
from ssl_app.models.backbones import build
from ssl_app.pretext.base import TrainingSet
from ssl_app.pretext.from_labels import FromLabels, FromLabelsConfig

KEYS = ["a.png", "b,c.png", "d.png", "e.png"]


def task_of(path: Path, text: str, keys: list[str] = KEYS) -> FromLabels:
    path.write_text(text, encoding="utf-8")
    torch.manual_seed(0)
    return FromLabels(build("small-resnet", 1, 16), FromLabelsConfig(path), TrainingSet(len(keys), 4, keys))


def test_every_column_of_clusters_has_a_head_and_order_does_not_matter(tmp_path: Path) -> None:
    text = 'path,cluster,confidence,cluster_2\ne.png,10,.5,0\n"b,c.png",2,.5,1\na.png,2,.5,1\nd.png,7,.5,0\n'
    task = task_of(tmp_path / "labels.csv", text)
    assert task.labels.tolist() == [[0, 0, 1, 2], [1, 1, 0, 0]]  # 2 before 7 before 10
    assert [head.out_features for head in task.heads] == [3, 2]
    assert task.sampling_weights() is None
    assert tuple(map(str, task.notes)) == (f"2 labelings of 4 of 4 images, from {tmp_path / 'labels.csv'}",)


def test_images_without_a_label_are_not_drawn_and_weigh_nothing(tmp_path: Path) -> None:
    task = task_of(tmp_path / "names.csv", "path,cluster,label\na.png,1,crack\nd.png,2,scratch\n").eval()
    assert task.labels.tolist() == [[0, -1, 1, -1]]  # the names, where there are names
    weights = task.sampling_weights()
    assert weights is not None
    assert weights.tolist() == [1, 0, 1, 0]
    images = torch.randn(4, 1, 16, 16)
    loss, metrics = task.loss(Batch((images,), torch.arange(4), None, 0), "main")
    logits = task.heads[0](task.backbone(images))
    each = [-torch.log_softmax(logits[row], 0)[label] for row, label in ((0, 0), (2, 1))]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    hits = [int(logits[row].argmax()) == label for row, label in ((0, 0), (2, 1))]
    assert float(metrics["accuracy"]) == pytest.approx(sum(hits) / 2)


def test_other_labels_are_another_training(tmp_path: Path) -> None:
    texts = ["path,label\na.png,x\nd.png,y\n", "path,label\na.png,y\nd.png,x\n", "path,label\na.png,x\nd.png,z\n"]
    hashes = [task_of(tmp_path / "names.csv", text).fingerprints["labels"] for text in (*texts, texts[0])]
    assert len(set(hashes)) == 3
    assert hashes[3] == hashes[0]


def test_a_column_that_says_nothing_is_left_out(tmp_path: Path) -> None:
    task = task_of(tmp_path / "labels.csv", "path,cluster,cluster_2\na.png,1,\nd.png,2,\n")
    assert len(task.heads) == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,cluster\nz.png,1\n", r"names none of 4 images: its first path is 'z\.png', theirs 'a\.png'; expected"),
        ("path,cluster\na.png,1\nd.png,1\n", "holds one label only; expected two or more"),
        ("path,cluster\na.png,1\n./a.png,2\n", r"lists \./a\.png twice \(rows 2 and 3\); remove one of them"),
        (
            "path,kind,age\na.png,1,2\n",
            "has the columns path, kind, age; expected path and label, or path and cluster",
        ),
    ],
)
def test_a_file_that_is_no_use_has_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        task_of(tmp_path / "labels.csv", text)


def test_no_file_is_asked_for(tmp_path: Path) -> None:
    backbone, data = build("small-resnet", 1, 16), TrainingSet(4, 4, KEYS)
    with pytest.raises(SettingsError) as settings_error:
        FromLabels(backbone, FromLabelsConfig(), data)
    assert str(settings_error.value).startswith("from-labels has nothing to learn; type labels FILE")
    with pytest.raises(UserError) as error:
        FromLabels(backbone, FromLabelsConfig(tmp_path / "gone.csv"), data)
    assert "gone.csv: it is not a file; expected a .csv, .tsv or .parquet" in str(error.value)
