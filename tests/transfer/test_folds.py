"""In cross-validation nothing of a tested group is trained on, with labels or without."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from ssl_app.transfer.trial import Job, draw_of


def test_unlabeled_images_of_tested_groups_are_left_out() -> None:
    units = np.array([f"patient{i // 4}" for i in range(40)])  # of four images each
    setup = cast(
        Any,
        SimpleNamespace(
            dataset=SimpleNamespace(units=units.tolist(), classes=("a", "b")),
            config=SimpleNamespace(validation="within", seed=0),
            opened=SimpleNamespace(parts=SimpleNamespace(val=np.array([], dtype=np.int64))),
            unlabeled=np.arange(40),
            rows=lambda indices, labeled=False: SimpleNamespace(indices=indices),
            hardware=None,
            cache=None,
            further=lambda: [],
            maps=None,
        ),
    )
    labeled = np.arange(0, 40, 4)  # one of each patient
    job = Job("label-propagation", labeled[:8], 0, tested=labeled[8:])
    unlabeled = draw_of(setup, job, seed=0).rows.unlabeled.indices
    assert set(units[unlabeled]) == {f"patient{i}" for i in range(8)}
    assert not set(unlabeled.tolist()) & set(labeled.tolist()[:8])
    plain = draw_of(setup, Job("label-propagation", labeled, 0), seed=0).rows.unlabeled.indices
    assert len(plain) == 30
