"""What a trial's process says reaches the one that asked it."""

import pickle

from ssl_app.transfer.workers import TrialDiverged


def test_a_trial_that_diverged_says_whose_it_was_in_another_process_too() -> None:
    error = pickle.loads(pickle.dumps(TrialDiverged("trial a of b: the loss became nan", "run-x")))
    assert isinstance(error, TrialDiverged)
    assert str(error) == "trial a of b: the loss became nan"
    assert error.init == "run-x"
