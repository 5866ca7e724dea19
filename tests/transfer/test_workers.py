"""What a trial's process reports reaches the one that started it, and a trial's file is of one sweep."""

import pickle
from pathlib import Path

import numpy as np

from ssl_app.errors import Change, Set
from ssl_app.transfer.trial import Job
from ssl_app.transfer.workers import Place, PlannedTrial, TrialDiverged, read_trial, write_trial


def test_a_trial_that_diverged_says_whose_it_was_in_another_process_too() -> None:
    fixes = (Change("lr", "a smaller"), Set("clip", 1))
    error = pickle.loads(pickle.dumps(TrialDiverged("trial a of b: the loss became nan", "run-x", fixes)))
    assert isinstance(error, TrialDiverged)
    assert str(error) == "trial a of b: the loss became nan; type a smaller lr, or clip 1"
    assert error.notice.fixes == fixes
    assert error.init == "run-x"


def test_a_trials_file_is_read_by_its_own_sweep_alone(tmp_path: Path) -> None:
    trial = PlannedTrial("a", "run", 4, Job("two-stage", np.arange(4), 0))
    place = Place(tmp_path, {"run": "this sweep"})
    assert read_trial(place, trial) is None
    content = {"identity": "this sweep", "draw": 0, "accuracy": 0.5}
    write_trial(tmp_path, "a", content, {"confusion": [[1, 0], [0, 1]]})
    assert read_trial(place, trial) == content, "without its tables"
    assert read_trial(Place(tmp_path, {"run": "another sweep"}), trial) is None
