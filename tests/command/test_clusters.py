"""`ssl-app clusters`: the page and its sheets, from labels written by hand beside one tiny pretraining."""

import csv
import html.parser
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ODD = "a\"<script>alert(1)</script>, ü'&amp;.png"  # its slash makes a folder of the first half


class Page(html.parser.HTMLParser):
    """What a browser finds in the page before a script runs: elements, the policy, and the data."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str | None, str] = {}
        self.inside: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = str(dict(attrs).get("id") or tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside = None

    def handle_data(self, data: str) -> None:
        self.texts[self.inside] = self.texts.get(self.inside, "") + data

    @property
    def data(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.texts["data"])
        return content

    @property
    def policy(self) -> str:
        return next(
            str(of["content"]) for tag, of in self.elements if of.get("http-equiv") == "Content-Security-Policy"
        )


@dataclass(frozen=True)
class Labeled:
    """A copy of the tiny pretraining `p`, for one test to write labels in."""

    data: Path
    out: Path

    @property
    def run(self) -> Path:
        return self.out / "p"

    def keys(self) -> list[str]:
        return sorted(str(path.relative_to(self.data)) for path in self.data.rglob("*.png"))

    def write(self, rows: list[dict[str, Any]], sizes: list[int], label: str | None = None, data: str = "") -> None:
        """labels.csv and labels.json as `ssl-app label` leaves them."""
        with (self.run / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        opened = {"data": data or str(self.data), "label": label, "group": None, "split": None, "max_unreadable": 0}
        about = {"data": opened, "method": "sela", "clusters": sizes, "n": len(rows)}
        (self.run / "labels.json").write_text(json.dumps(about))

    def rows(self, cluster: Callable[[int], int] = lambda i: i % 4) -> list[dict[str, Any]]:
        """Every image, ever less confident."""
        return [
            {"path": key, "cluster": cluster(i), "confidence": round(1 - i / 200, 4), "margin": 0.5}
            for i, key in enumerate(self.keys())
        ]


@pytest.fixture
def labeled(trained, tmp_path: Path) -> Labeled:
    shutil.copytree(trained.out, tmp_path / "runs")
    return Labeled(trained.data, tmp_path / "runs")


@pytest.fixture
def clusters(ssl, labeled: Labeled) -> Callable[..., dict[str, Any]]:
    """Type `ssl-app clusters p`: its result."""

    def typed(*words: object) -> dict[str, Any]:
        found: dict[str, Any] = ssl("clusters", "p", *words, "--out", labeled.out, "--json").result
        return found

    return typed


@pytest.fixture
def refuse(ssl, labeled: Labeled) -> Callable[..., str]:
    """Type what must be refused: its one line, and nothing new lies in the run."""

    def refused(*words: object, run: object = "p") -> str:
        before = sorted(path.name for path in labeled.run.iterdir())
        error: str = ssl("clusters", run, *words, "--out", labeled.out).error
        assert sorted(path.name for path in labeled.run.iterdir()) == before
        return error

    return refused


def sheet(page: str, name: str) -> np.ndarray:
    import cv2

    found = cv2.imread(str(Path(page).parent / "sheets" / name), cv2.IMREAD_UNCHANGED)
    assert found is not None, name
    return np.asarray(found)


def sheets(page: str) -> list[str]:
    root = Path(page).parent / "sheets"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))


def test_the_page_holds_every_image_most_confident_first(ssl, labeled: Labeled) -> None:
    labeled.write(labeled.rows()[::-1], [5])
    answer = ssl("clusters", "p", "--out", labeled.out, "--per-cluster", 4, "--thumb", 20, "--json")
    result = answer.result
    assert set(result) == {
        "verb",
        "run",
        "seconds",
        "settings",
        "page",
        "bytes",
        "pictures",
        "n",
        "heads",
        "clusters",
        "clusters_used",
    } | {"unreadable"}
    assert result["page"] == str(labeled.run / "clusters" / "clusters.html")
    assert (result["n"], result["heads"], result["clusters"], result["clusters_used"]) == (72, [1], [5], [4])
    page = Path(result["page"])
    size = sum(path.stat().st_size for path in page.parent.rglob("*") if path.is_file())
    assert (result["bytes"], result["pictures"]) == (size, 0), "the thumbnails show all that there is"
    assert (
        f"72 images in 4 of 5 clusters, {size / 1e6:.1f} MB, thumbnails of 16 px; open this in a browser: {page}\n"
        in answer.err
    )
    data = Page(Path(result["page"])).data
    assert data["paths"] == labeled.keys(), "the table was the other way round"
    assert data["heads"][0]["confidence"][:2] == [1.0, 0.995]
    assert data["heads"][0]["clusterOf"] == [i % 4 for i in range(72)]
    assert (data["side"], data["perSheet"], data["columns"]) == (16, 4, 2), "no larger than the images"
    assert sheets(result["page"]) == [f"1/{cluster}-{number}.jpg" for cluster in range(4) for number in range(5)]
    assert {path.name for path in Path(result["page"]).parent.iterdir()} == {"clusters.html", "sheets"}
    assert not [path.name for path in labeled.run.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_size_confidence_and_purity_are_those_of_the_clusters(labeled: Labeled, clusters) -> None:
    labeled.write(labeled.rows(lambda i: 0 if i < 30 else 3), [4])  # 24 images a class
    first, second = Page(Path(clusters()["page"])).data["heads"][0]["clusters"]
    confidence = [1 - i / 200 for i in range(72)]
    expected = pytest.approx(np.mean(confidence[:30]), abs=1e-4)
    assert first == {
        "number": 0, "size": 30, "confidence": expected, "labeled": 30, "purity": 0.8, "majority": 0,
    }  # fmt: skip
    assert (second["number"], second["size"], second["purity"]) == (3, 42, round(24 / 42, 4))
    agreed = Page(Path(clusters()["page"])).data["heads"][0]["agreement"]
    assert agreed.startswith("72 labels: NMI 0.")
    assert agreed.endswith(", purity 0.667 (the largest class alone: 0.333)")
    assert Page(Path(clusters()["page"])).data["classes"][second["majority"]] == "class2"


def test_a_thumbnail_lies_where_the_page_looks_for_it(labeled: Labeled, clusters) -> None:
    import cv2

    labeled.write(labeled.rows(lambda i: i // 24), [3])
    page = clusters("--per-cluster", 9, "--thumb", 16)["page"]
    key = labeled.keys()[24 + 9 + 4]  # of cluster 1, on its second sheet, in the middle
    found = sheet(page, "1/1-1.jpg")
    assert found.shape == (48, 48)
    image = cv2.imread(str(labeled.data / key), cv2.IMREAD_UNCHANGED).astype(float)
    shown = found[16:32, 16:32].astype(float)
    assert np.corrcoef(image.ravel(), shown.ravel())[0, 1] > 0.97
    assert sheet(page, "1/1-2.jpg").shape == (32, 48), "6 of 24 are left: two lines"


def test_a_click_shows_what_the_file_holds(ssl, labeled: Labeled, tmp_path: Path, images) -> None:
    import cv2

    large = images(tmp_path / "large", per_class=4, side=90)
    for number in range(4):  # beside its square, as high as wide, there is more to see
        path = large / "class0" / f"{number:03d}.png"
        wide = np.tile(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), (1, 3))
        cv2.imwrite(str(path), wide)
    other = Labeled(large, labeled.out)
    other.write(other.rows(lambda i: i % 2), [2])
    words = ["clusters", "p", "--out", labeled.out, "--thumb", 24, "--per-cluster", 4, "--json"]
    answer = ssl(*words, "--enlarge", 64)
    page, result = Path(answer.result["page"]), answer.result
    assert Page(page).data["enlarged"] == "1" * 12
    shapes = [
        cv2.imread(str(page.parent / "pictures" / "0" / f"{number}.jpg"), cv2.IMREAD_UNCHANGED).shape
        for number in range(12)
    ]
    assert shapes == [(21, 64)] * 4 + [(64, 64)] * 8
    assert result["pictures"] == 12
    answer = ssl(*words, "--enlarge", 0)
    assert not (page.parent / "pictures").exists()
    assert answer.result["pictures"] == 0


def test_of_a_large_set_the_surest_and_the_least_sure_are_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_app.report import clusters

    monkeypatch.setattr(clusters, "MOST_PICTURES", 12)
    labeling = clusters.Labeling(
        run="r", identity="1", data="made", paths=[f"{i}" for i in range(30)], rows=np.arange(30),
        confidence=np.linspace(1, 0, 30)[None], heads=(1,), sizes=(3,), clusters=np.arange(30)[None] % 3, classes=(),
        labels=np.full(30, -1),
    )  # fmt: skip
    chosen = clusters._chosen(labeling, clusters.Sizes(24, 64, 8))
    assert np.flatnonzero(chosen).tolist() == [*range(6), *range(24, 30)]
    assert not clusters._chosen(labeling, clusters.Sizes(24, 0, 8)).any()


def test_several_heads_share_the_sheets_of_the_first(labeled: Labeled, clusters) -> None:
    import cv2

    rows = [row | {"cluster_2": i % 2, "confidence_2": round(i / 100, 4)} for i, row in enumerate(labeled.rows())]
    labeled.write(rows, [4, 2])
    result = clusters("--per-cluster", 10, "--thumb", 16)
    assert (result["heads"], result["clusters"], result["clusters_used"]) == ([1, 2], [4, 2], [4, 2])
    surest = cv2.imread(str(labeled.data / labeled.keys()[70]), cv2.IMREAD_UNCHANGED).astype(float)
    shown = sheet(result["page"], "2/0-0.jpg")[:16, :16].astype(float)
    assert np.corrcoef(surest.ravel(), shown.ravel())[0, 1] > 0.97, "by the second head's own confidence"
    whole = [f"1/{cluster}-{number}.jpg" for cluster in range(4) for number in range(2)]
    assert sheets(result["page"]) == [*whole, "2/0-0.jpg", "2/1-0.jpg"], "of a further head the first members only"
    assert [head["number"] for head in Page(Path(result["page"])).data["heads"]] == [1, 2]

    result = clusters("--per-cluster", 10, "--head", 2)
    assert (result["heads"], result["clusters"]) == ([2], [2])
    assert sheets(result["page"]) == [f"2/{cluster}-{number}.jpg" for cluster in range(2) for number in range(4)]


def test_names_are_kept_under_the_run_whatever_it_is_called(labeled: Labeled, clusters, ssl) -> None:
    labeled.write(labeled.rows(), [4])
    before = Page(Path(clusters()["page"])).data
    labeled.run.rename(labeled.out / "renamed")
    after = Page(Path(ssl("clusters", "renamed", "--out", labeled.out, "--json").result["page"])).data
    assert (before["run"], after["run"]) == ("p", "renamed")
    assert before["identity"] == after["identity"]


def test_a_name_of_a_file_stays_text(labeled: Labeled, ssl, images, tmp_path: Path) -> None:
    odd = images(tmp_path / "odd", per_class=3, classes=1)
    (odd / ODD).parent.mkdir(parents=True)
    (odd / "class0" / "000.png").rename(odd / ODD)
    other = Labeled(odd, labeled.out)
    other.write(other.rows(lambda i: i % 2), [2])
    page = Page(Path(ssl("clusters", "p", "--out", labeled.out, "--json").result["page"]))
    assert ODD in page.data["paths"]
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}], "the data and the page's own, no third"
    assert "<" not in page.texts["data"]


def test_the_page_may_run_its_own_script_and_ask_no_network(labeled: Labeled, clusters) -> None:
    import base64
    import hashlib

    labeled.write(labeled.rows(), [4])
    page = Page(Path(clusters()["page"]))
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert (rules["default-src"], rules["base-uri"], rules["form-action"]) == ("'none'", "'none'", "'none'")
    assert rules["img-src"] == "'self' file: data:"
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[kind].encode()).digest()).decode()
        assert rules[f"{kind}-src"] == f"'sha256-{digest}'"
    named = [attributes[name] for _, attributes in page.elements for name in ("src", "href") if name in attributes]
    assert named == ["data:,"], "the icon"


def test_made_again_the_page_takes_the_place_of_the_old_one(labeled: Labeled, clusters) -> None:
    labeled.write(labeled.rows(), [4])
    clusters()
    labeled.write(labeled.rows(lambda i: 0), [4])
    result = clusters()
    assert sheets(result["page"]) == ["1/0-0.jpg", "1/0-1.jpg", "1/0-2.jpg"]
    assert not [path.name for path in labeled.run.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_an_end_in_the_middle_leaves_the_old_page(labeled: Labeled, clusters, monkeypatch) -> None:
    from ssl_app.report import clusters as report

    labeled.write(labeled.rows(), [4])
    before = Path(clusters()["page"]).read_bytes()

    def stop(shown: report.Labeling) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "content", stop)  # when the sheets lie there
    with pytest.raises(AssertionError, match="stopped"):
        clusters()
    assert (labeled.run / "clusters" / "clusters.html").read_bytes() == before
    assert not [path.name for path in labeled.run.iterdir() if path.name.startswith(".") and path.name != ".lock"]


def test_rows_and_images_without_each_other_are_left_out_and_said(labeled: Labeled, ssl) -> None:
    labeled.write([*labeled.rows()[2:], {"path": "gone.png", "cluster": 0, "confidence": 1, "margin": 1}], [4])
    answer = ssl("clusters", "p", "--out", labeled.out, "--json")
    assert answer.result["n"] == 70
    assert f"note: 1 rows of labels.csv are of no image of {labeled.data}, and left out\n" in answer.err
    assert f"note: 2 images of {labeled.data} have no cluster, and are left out\n" in answer.err


def test_without_labels_the_page_speaks_of_none(labeled: Labeled, clusters) -> None:
    labeled.write(labeled.rows(), [4], label="none")
    data = Page(Path(clusters()["page"])).data
    assert (data["classes"], data["labels"]) == ([], None)
    assert set(data["heads"][0]["clusters"][0]) == {"number", "size", "confidence"}


@pytest.mark.parametrize(
    ("shape", "dtype", "intensity", "channels"),
    [
        ((60, 60, 3), "uint8", "range", 3),
        ((60, 60, 3), "uint8", "range", 1),
        ((20, 20, 1), "uint16", "range", 1),
        ((90, 60, 1), "float32", "dtype", 1),
        ((60, 60, 5), "uint8", "per-image", 1),
    ],
)
def test_images_of_every_form_become_thumbnails(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, intensity: str, channels: int
) -> None:
    from ssl_app.data.intensity import PixelScaling
    from ssl_app.report.clusters import Labeling, Sizes, write_page
    from tests.toys import InMemory

    image = np.zeros(shape, dtype)
    bright = 40_000 if dtype == "uint16" else 1 if dtype == "float32" else 200
    image[: shape[0] // 2] = bright  # white above, black below, and red only
    if channels == 3:
        image[..., 1:] = 0
    labeling = Labeling(
        run="r", identity="1", data="made", paths=[f"{i}" for i in range(6)],
        rows=np.random.default_rng(0).permutation(6), confidence=np.full((1, 6), 0.5), heads=(1,), sizes=(1,),
        clusters=np.zeros((1, 6), np.int64), classes=(), labels=np.full(6, -1), channels=channels,
    )  # fmt: skip
    pixels = PixelScaling(intensity, 0, float(bright), (), ())
    written = write_page(tmp_path / "clusters", labeling, InMemory([image] * 6), pixels, Sizes(32, 64, 6))
    side = min(shape[0], 32)
    found = sheet(str(written.page), "1/0-0.jpg").astype(int)
    assert written.thumb == side
    assert found.shape == (2 * side, 3 * side, 3)[: 3 if channels == 3 else 2]
    above, below = found[2 : side // 2 - 4, 4 : side - 4], found[side // 2 + 4 : side - 2, 4 : side - 4]
    assert np.abs(above.reshape(-1, channels).mean(0) - ([0, 0, 255] if channels == 3 else 255)).max() < 65
    assert below.max() < 40


def test_a_window_of_its_own_scales_an_image_as_it_was_packed() -> None:
    from ssl_app.data.intensity import FILE_WINDOW, PixelScaling
    from ssl_app.report.originals import picture
    from tests.toys import InMemory

    source = InMemory([np.array([[[-100.0], [0.0], [300.0]]], np.float32)])
    source.windows = ((-50.0, 50.0),)
    assert picture(source, 0, PixelScaling(FILE_WINDOW, 0, 1, (), ()), 64).ravel().tolist() == [0, 128, 255]


def test_a_file_that_is_gone_is_black_and_counted(labeled: Labeled, ssl, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_app.data.images import Unreadable
    from ssl_app.report import originals

    whole = originals.picture

    def first_is_gone(source: Any, row: int, *about: Any) -> Any:
        if row == 0:
            raise Unreadable("the file is missing")
        return whole(source, row, *about)

    monkeypatch.setattr(originals, "picture", first_is_gone)
    labeled.write(labeled.rows(), [4])
    answer = ssl("clusters", "p", "--out", labeled.out, "--json")
    assert "note: 1 images cannot be read any more, and are black\n" in answer.err
    assert sheet(answer.result["page"], "1/0-0.jpg")[:16, :16].max() < 40


def test_a_mistake_is_one_line(labeled: Labeled, refuse, tmp_path: Path) -> None:
    run = labeled.run
    assert refuse() == f"run {run} has no labels.csv; type ssl-app label p first"
    assert refuse(run="q").startswith(f"no run 'q' in {labeled.out}")

    labeled.write(labeled.rows(), [4])
    assert refuse("--head", 2) == (f"--head is 2; labels.csv of run {run} has 1 head: type --head 1, or leave it out")
    assert refuse("--thumb", 4) == "--thumb is 4; expected at least 16"

    strange = [row | {"path": f"elsewhere/{i}.png"} for i, row in enumerate(labeled.rows())]
    labeled.write(strange, [4])
    assert refuse() == (
        f"labels.csv of run {run} names none of the 72 images of {labeled.data}; its first path is "
        f"'elsewhere/0.png', theirs 'class0/000.png': type --data with the images that were labeled"
    )
    labeled.write(labeled.rows(), [4], data=str(tmp_path / "moved"))
    assert refuse() == (
        f"{tmp_path / 'moved'}, which labels.csv of run {run} was made from, is not there; "
        f"type --data with its place now"
    )
    (run / "labels.json").unlink()
    assert refuse() == f"run {run} has no labels.json; type ssl-app label p first"


def test_labels_that_are_not_as_written_are_refused(labeled: Labeled, refuse) -> None:
    run = labeled.run
    labeled.write(labeled.rows(), [3])
    assert refuse() == f"labels.csv of run {run} has 3 in column cluster; expected 0 to 2: type ssl-app label p again"
    labeled.write(labeled.rows(), [4, 4])
    assert refuse() == (
        f"labels.csv of run {run} lacks 'cluster_2', which labels.json promises; type ssl-app label p again"
    )
    labeled.write([row | {"confidence": "high"} for row in labeled.rows()], [4])
    assert refuse() == (
        f"labels.csv of run {run} cannot be read (could not convert string to float: 'high'); "
        f"type ssl-app label p again"
    )
    labeled.write([row | {"confidence": "nan"} for row in labeled.rows()], [4])
    assert refuse() == f"labels.csv of run {run} has a confidence of nan; expected 0 to 1: type ssl-app label p again"
    for text, reason in (
        ("path,cluster,confidence\na.png,1\n", "row 2 has 2 fields, the header 3"),
        ("path,cluster,confidence\n", "it lists no images"),
        ("", "it lists no images"),
    ):
        (run / "labels.csv").write_text(text)
        assert refuse() == f"labels.csv of run {run} cannot be read ({reason}); type ssl-app label p again"


def test_an_unfinished_run_and_one_that_is_no_pretraining_are_refused(labeled: Labeled, refuse) -> None:
    labeled.write(labeled.rows(), [4])
    (labeled.run / "backbone.safetensors").unlink()
    assert refuse() == (
        f"run {labeled.run} holds no backbone.safetensors; expected a pretraining that ssl-app label has labeled"
    )
    (labeled.run / "result.json").unlink()
    assert refuse() == (f"run {labeled.run} has not finished; type ssl-app pretrain --resume p, or name another run")
