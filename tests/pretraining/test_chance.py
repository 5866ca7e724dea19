"""What a network that knows nothing scores, in the batches that are scored."""

from types import SimpleNamespace

import pytest

from ssl_app.pretext.simclr import SimCLR
from ssl_app.pretraining.run import Pretraining


@pytest.mark.parametrize(("held", "processes", "among"), [(5, 1, 5), (500, 1, 64), (500, 2, 32), (0, 1, 64)])
def test_chance_is_that_of_the_validation_images(held: int, processes: int, among: int) -> None:
    task = SimCLR.__new__(SimCLR)
    of = SimpleNamespace(
        task=task,
        plan=SimpleNamespace(batch_size=128, accumulate=2),
        inputs=SimpleNamespace(validation=range(held)),
        group=SimpleNamespace(world=processes),
    )
    assert Pretraining.chance.fget(of) == task.chance_at(among)
