"""`pretrain` draws the views before it trains, and with --show-views nothing else."""

import json
from pathlib import Path


def test_views_are_drawn_and_nothing_is_trained(ssl, tiny, trained, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    words = ["pretrain", "--data", trained.data, "--method", "rotnet", "--show-views", "--out", out, *tiny, "--json"]
    answer = ssl(*words, "--budget", "1h", "--seeds", 3)
    assert answer.result["views"] == str(out / "views.png")
    assert (out / "views.png").is_file()
    assert f"views: {out / 'views.png'}; nothing was trained" in answer.err
    assert answer.result["settings"]["method_settings"] == {"rotation_head": "auto"}
    assert not list(out.glob("*/settings.json"))
    assert "no finished pretraining" in ssl("finetune", "--out", out, "--per-class", 4, *tiny).error
    named = ssl(*words, "--name", "p", "--augment", "strong").result
    assert named["views"] == str(out / "p-views.png")
    assert {path.name for path in out.iterdir()} == {"views.png", "p-views.png", "cache"}


def test_a_training_draws_them_first_and_a_resumed_run_has_them_already(ssl, tiny, trained) -> None:
    views, checkpoint = trained.out / "p" / "views.png", trained.out / "p" / "backbone.safetensors"
    assert views.stat().st_mtime_ns < checkpoint.stat().st_mtime_ns
    refused = ssl("pretrain", "--resume", "p", "--show-views", "--out", trained.out, *tiny)
    assert refused.error == "--show-views is for a new pretraining; the views of p are in its folder"
    assert json.loads((trained.out / "p" / "settings.json").read_text())["settings"]["show_views"] is False
