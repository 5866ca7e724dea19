"""Right answers with given scores: the first images are right, so that all that is better is right where less is."""

from collections.abc import Mapping, Sequence

import numpy as np

from ssl_app.evaluation.comparison import Answered
from ssl_app.evaluation.difference import ScoredPart

IMAGES = 1000
PART = ScoredPart(np.zeros(IMAGES, dtype=np.int64))


def right(score: float) -> np.ndarray:
    """(N,) of which this share is right."""
    return np.arange(IMAGES) < round(score * IMAGES)


def with_scores(scores: Mapping[tuple[str, str, int], Sequence[float]]) -> Answered:
    """From scores of each draw by initialization, strategy and labels per class."""
    return Answered(
        PART, {(*key, d): right(score) for key, values in scores.items() for d, score in enumerate(values)}
    )
