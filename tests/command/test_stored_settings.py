"""Settings as a run keeps them: what a resumed run reads is what the first one had."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ssl_app import runs
from ssl_app.commands import pretrain
from ssl_app.errors import SettingsError
from ssl_app.pretext.from_labels import FromLabelsConfig
from ssl_app.pretext.rotnet import RotNet
from ssl_app.pretraining.schedule import Schedule
from ssl_app.settings import PretrainSettings


class Own(RotNet):
    """A method whose augmentation is its own, though its defaults name a preset."""

    def augmentation(self, frame):
        raise NotImplementedError


@pytest.mark.parametrize(("task", "augment"), [(RotNet, RotNet.defaults.augment), (Own, None)])
def test_a_preset_is_kept_where_it_is_what_was_trained_on(task: type[RotNet], augment: str | None) -> None:
    spec = SimpleNamespace(
        schedule=Schedule(),
        name="own",
        pixels=SimpleNamespace(size=16),
        initialization=SimpleNamespace(backbone="nin"),
    )
    hardware = SimpleNamespace(precision="fp32")
    work = SimpleNamespace(inputs=SimpleNamespace(spec=spec), task=task.__new__(task), hardware=hardware)
    assert pretrain._resolved(PretrainSettings(), work).augment == augment
    assert pretrain._resolved(PretrainSettings(augment="none"), work).augment == "none"


def test_a_path_typed_again_is_the_same_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    stored = pretrain.config.as_json(PretrainSettings(data="scans", exclude="scans")) | {"method_settings": {}}
    folder = runs.new_run(tmp_path / "runs", "r", "pretrain", stored | {"method": "rotnet"})
    again = PretrainSettings(out=tmp_path / "runs", resume="r", data="scans", exclude="scans")
    assert pretrain._resumed(again)[0].data == str(tmp_path / "scans")
    with pytest.raises(SettingsError, match="--data others is not what run r was started with"):
        pretrain._resumed(PretrainSettings(out=tmp_path / "runs", resume=folder.name, data="others"))


def test_a_table_of_labels_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("path,label\n")
    assert pretrain.config.as_json(FromLabelsConfig(Path("labels.csv"))) == {"labels": str(tmp_path / "labels.csv")}
