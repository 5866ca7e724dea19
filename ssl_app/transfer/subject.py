"""The subject of pictures of a trial setup: its network, and images of its training part."""

import logging

import numpy as np
from numpy.typing import NDArray

from ssl_app.data.dataset import named_alone
from ssl_app.models.backbones import Backbone
from ssl_app.report.pictures import Subject
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.inference import frozen_features
from ssl_app.transfer.trial import TrialSetup

logger = logging.getLogger(__name__)

MOST = 5000  # images


def shown_images(setup: TrialSetup) -> NDArray[np.int64]:
    """Every k-th image of the training part, 5,000 at most: the test part is not looked at."""
    train = setup.unlabeled
    some = train[:: -(-len(train) // MOST)]
    if len(some) < len(train):
        logger.info(f"pictures: of {len(some):,} of the {len(train):,} images of the training part")
    return some


def subject_of(
    setup: TrialSetup,
    backbone: Backbone,
    layers: tuple[str, ...],
    features: NDArray[np.float32] | None = None,
    clusters: NDArray[np.int64] | None = None,
    predictor: Ensemble | None = None,
    tsne: bool = False,
) -> Subject:
    """The subject of `report.learned.draw`; without layers, every named one of the backbone.

    Features (N, d) of the pooled last layer, and clusters (N,), are of `shown_images`; without features they are
    computed. `predictor` is a finished classifier of the set's classes.
    """
    dataset, indices = setup.dataset, shown_images(setup)
    rows = setup.rows(indices)
    if features is None:
        features = frozen_features(backbone, None, rows, setup.hardware)
    assert len(features) == len(indices), (len(features), len(indices))
    groups = None
    if dataset.groups is not None:
        groups = [None if named_alone(dataset.groups[i]) else dataset.groups[i] for i in indices]
    return Subject(
        name=setup.initialization.name,
        backbone=backbone,
        layers=layers or backbone.layers,
        rows=rows,
        hardware=setup.hardware,
        features=features,
        keys=[dataset.keys[i] for i in indices],
        units=[dataset.units[i] for i in indices],
        classes=dataset.classes,
        labels=np.where(dataset.labeled[indices], dataset.labels[indices], -1),
        groups=groups,
        clusters=clusters,
        group_word=dataset.columns.group or "group",
        predictor=predictor,
        tsne=tsne,
        seed=setup.config.seed,
    )
