"""What the loop promises every task: hooks, players, freezing, accumulation and resuming to the same bits."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_app import checkpoints
from ssl_app.data.batch import Batch
from ssl_app.data.loading import Loader
from ssl_app.errors import CheckpointError
from ssl_app.training import loop, rows
from ssl_app.training.hardware import Hardware
from ssl_app.training.history import History
from ssl_app.training.loop import Diverged, Hooks, fit
from ssl_app.training.optimizer import Plan, build_optimizer, factor, freeze
from ssl_app.training.resume import Checkpointing
from ssl_app.training.signals import Stopped
from ssl_app.training.task import DatasetMap, Metrics, Needs, Task
from tests import toys
from tests.toys import assert_same_bits, bits


def make(kind: str) -> Task:
    torch.manual_seed(1)
    return {
        "mean": toys.Mean,
        "self-labels": lambda: toys.SelfLabels(24),
        "new-head": lambda: toys.NewHead(24),
        "duel": toys.Duel,
    }[kind]()


def plan_for(task: Task, **more: object) -> Plan:
    return Plan(**({"rates": dict.fromkeys(task.parts(), 0.05), "epochs": 3, "batch_size": 8} | more))


def train(
    task: Task, loader: Loader | None = None, checkpointing: Checkpointing | None = None, **more: object
) -> History:
    return fit(task, loader or toys.loader(), plan_for(task, **more), toys.CPU, checkpointing=checkpointing)


TASKS = ["mean", "self-labels", "new-head", "duel"]


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_stopped_training_goes_on_to_the_same_bits(kind: str, after: int, tmp_path: Path) -> None:
    optimizer = "adamw" if kind == "mean" else "sgd"
    whole, broken = make(kind), make(kind)
    history = train(whole, optimizer=optimizer)
    path = tmp_path / "state.safetensors"
    toys.stop_in_step(broken, after)
    with pytest.raises(Stopped):
        train(broken, checkpointing=Checkpointing(path), optimizer=optimizer)
    torch.manual_seed(99)  # whatever the global generator holds
    resumed = make(kind)
    again = train(resumed, checkpointing=Checkpointing(path, resume=True), optimizer=optimizer)
    assert_same_bits(bits(whole), bits(resumed))
    assert [metrics["epoch"] for metrics in again] == [1, 2, 3]
    loss = "loss_discriminator" if kind == "duel" else "loss"
    for one, other in zip(history, again, strict=True):
        assert one[loss] == pytest.approx(other[loss], rel=1e-12)


def test_resuming_under_other_threads_is_refused_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    train(make("mean"), checkpointing=Checkpointing(path))
    other = Hardware(torch.device("cpu"), False, "a test", 3)
    task = make("mean")
    with pytest.raises(CheckpointError, match="was trained with threads 1, here it is 3"):
        fit(task, toys.loader(), plan_for(task), other, checkpointing=Checkpointing(path, resume=True))
    checkpointing = Checkpointing(path, resume=True, any_threads=True)
    assert fit(task, toys.loader(), plan_for(task), other, checkpointing=checkpointing)


def test_a_checkpoint_without_threads_goes_on_here(tmp_path: Path) -> None:
    """A GPU's arithmetic has none."""
    path = tmp_path / "state.safetensors"
    train(make("mean"), checkpointing=Checkpointing(path))
    tensors, meta = checkpoints.read(path)
    del meta["arithmetic"]["threads"]
    checkpoints.write(path, tensors, meta)
    train(make("mean"), checkpointing=Checkpointing(path, resume=True, any_threads=True))


def test_images_a_second_are_those_of_steps_that_were_made(tmp_path: Path) -> None:
    """Of an epoch that was stopped after its last step, the next process makes none."""
    path, broken = tmp_path / "state.safetensors", make("mean")
    steps = toys.loader().steps
    toys.stop_in_step(broken, 2 * steps)
    with pytest.raises(Stopped):
        train(broken, checkpointing=Checkpointing(path))
    history = train(make("mean"), checkpointing=Checkpointing(path, resume=True))
    assert len({one["images_per_second"] for one in history[:2]}) == 1, "the epoch before says what is known"


def test_relabeling_happens_at_fractions_of_an_epoch_and_in_dataset_order() -> None:
    task = make("self-labels")
    history = train(task)
    assert int(task.done) == 4
    assert [metrics.get("relabeled") for metrics in history] == [2.0, 4.0, None]
    assert torch.bincount(task.labels).tolist() == [8, 8, 8]


def test_the_optimizer_forgets_what_was_reinitialized(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[int] = []
    original = loop.forget

    def spy(optimizer: torch.optim.Optimizer, parameters: set[nn.Parameter]) -> None:
        had = sum(parameter in optimizer.state for parameter in parameters)
        original(optimizer, parameters)
        dropped.append(had - sum(parameter in optimizer.state for parameter in parameters))

    monkeypatch.setattr(loop, "forget", spy)
    train(make("new-head"))
    assert dropped == [0, 2, 2]  # nothing to forget at first, then weight and bias


def test_sampling_weights_decide_how_often_an_image_is_drawn() -> None:
    loader = toys.loader(count=24, batch_size=8)
    weights = torch.zeros(24)
    weights[[3, 5]] = torch.tensor([1.0, 3.0])
    drawn = torch.from_numpy(loader.order(0, 200, weights)).flatten()
    assert set(drawn.tolist()) == {3, 5}
    assert (drawn == 5).float().mean() == pytest.approx(0.75, abs=0.04)


def test_each_player_moves_its_own_parameters_only() -> None:
    for player, still in (("discriminator", "generator"), ("generator", "discriminator")):
        task = make("duel")
        before = bits(task)
        rates = {player: 0.05, still: 0.0}
        train(task, rates=rates, weight_decay=0.0, epochs=1)
        moved = {name.split(".")[0] for name in before if not torch.equal(before[name], task.state_dict()[name])}
        assert moved == {player}


def test_frozen_means_frozen() -> None:
    class Parts(toys.Mean):
        def parts(self) -> dict[str, nn.Module]:
            return {"trunk": self.net[:4], "head": self.net[4:]}

    torch.manual_seed(1)
    task = Parts()
    before = bits(task)
    train(task, rates={"head": 0.1})
    after = task.state_dict()
    assert all(
        torch.equal(before[n], after[n]) for n in before if not n.startswith("net.6")
    )  # weights and statistics
    assert not torch.equal(before["net.6.weight"], after["net.6.weight"])


def test_accumulated_micro_batches_average_their_gradients() -> None:
    """One step over four micro-batches moves as the mean of their four gradients, taken by hand."""
    torch.manual_seed(1)
    task = toys.Mean()
    task.net[5] = nn.Identity()  # without dropout, which draws per micro-batch
    reference = toys.Mean()
    reference.net[5] = nn.Identity()
    reference.load_state_dict(task.state_dict())
    more = {"epochs": 1, "schedule": "constant", "warmup": 0.0, "momentum": 0.0, "weight_decay": 0.0}
    train(task, toys.loader(batch_size=24, micro=4), batch_size=24, accumulate=4, **more)
    freeze(reference, plan_for(reference, **more))
    for batch in next(toys.loader(batch_size=24, micro=4).epoch(0, 1)):
        (reference.loss(batch, "main")[0] / 4).backward()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter -= 0.05 * parameter.grad
    for one, other in zip(task.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_every_parameter_has_an_owner() -> None:
    class Lost(toys.Mean):
        def parts(self) -> dict[str, nn.Module]:
            return {"trunk": self.net[:2]}

    task = Lost()
    with pytest.raises(AssertionError, match="belong to no part"):
        build_optimizer(task, "main", Plan(rates={"trunk": 0.1}, epochs=1, batch_size=8))


def test_warmup_rises_and_cosine_falls_to_zero() -> None:
    plan = Plan(rates={}, epochs=1, batch_size=1, warmup=0.1)
    factors = [factor(plan, step, 100) for step in range(100)]
    assert factors[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert factors[10] == 1.0
    assert all(later < earlier for earlier, later in pairwise(factors[10:]))
    assert factors[-1] < 0.001
    steps = Plan(rates={}, epochs=1, batch_size=1, warmup=0.0, schedule="step", milestones=(0.5,), gamma=0.1)
    assert [factor(steps, step, 10) for step in (4, 5)] == pytest.approx([1.0, 0.1])


def test_a_loss_that_is_not_finite_stops_with_a_window_of_steps() -> None:
    class Nan(toys.Mean):
        def loss(self, batch: object, player: str) -> object:
            loss, metrics = super().loss(batch, player)
            return loss * float("nan"), metrics

    with pytest.raises(Diverged, match=r"became nan within steps 0 to 3 of epoch 1; type a smaller lr, or clip 1"):
        train(Nan())


class Sides(toys.Mean):
    """Keeps the side of the images in each call of its loss, and of what it maps."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[int] = []
        self.scored: list[int] = []
        self.mapped: list[int] = []

    def start_epoch(self, epoch: int, map_dataset: DatasetMap) -> Metrics:
        map_dataset(lambda batch: batch.images.new_full((len(batch.index), 1), self.note(batch)))
        return {}

    def finish(self, map_dataset: DatasetMap) -> None:
        self.start_epoch(-1, map_dataset)

    def note(self, batch: Batch) -> float:
        self.mapped.append(batch.images.shape[-1])
        return 0.0

    def loss(self, batch: Batch, player: str) -> tuple[torch.Tensor, Metrics]:
        assert len({view.shape for view in batch.views}) == 1
        (self.trained if self.training else self.scored).append(batch.images.shape[-1])
        return super().loss(batch, player)


@pytest.mark.parametrize(("side", "small"), [(12, 6), (13, 7)])
def test_the_first_steps_are_at_half_the_side_and_scores_too(side: int, small: int) -> None:
    torch.manual_seed(1)
    task, loader = Sides(), toys.loader(side=side, views=2)
    fit(task, loader, plan_for(task, half_size=0.5), toys.CPU, Hooks(validation=loader))
    assert task.trained == [small] * 4 + [side] * 5  # three epochs of three steps
    assert task.scored == [small, side, side], "of the size that is trained on next"
    assert task.mapped == [small, small, side, side], "before each epoch as its first step, at the end in full"


def test_half_the_side_is_the_mean_of_four_pixels_in_every_view() -> None:
    (batch,) = next(toys.loader(views=2).epoch(0, 1))
    for view, half in zip(batch.views, batch.halved().views, strict=True):
        by_hand = (view[..., ::2, ::2] + view[..., 1::2, ::2] + view[..., ::2, 1::2] + view[..., 1::2, 1::2]) / 4
        torch.testing.assert_close(half, by_hand)


@pytest.mark.parametrize("after", [2, 4, 5])
def test_a_training_that_is_stopped_at_half_the_side_goes_on_to_the_same_bits(after: int, tmp_path: Path) -> None:
    whole, broken, resumed = (make("mean") for _ in range(3))
    accumulating = toys.loader(micro=2)
    train(whole, accumulating, half_size=0.5, accumulate=2)
    path = tmp_path / "state.safetensors"
    toys.stop_in_step(broken, after)
    with pytest.raises(Stopped):
        train(broken, accumulating, Checkpointing(path), half_size=0.5, accumulate=2)
    train(resumed, accumulating, Checkpointing(path, resume=True), half_size=0.5, accumulate=2)
    assert_same_bits(bits(whole), bits(resumed))
    in_full = make("mean")
    train(in_full, accumulating, accumulate=2)
    assert not all(
        torch.equal(one, other) for one, other in zip(bits(whole).values(), bits(in_full).values(), strict=True)
    )


def test_the_rate_falls_by_the_pixels_that_were_trained_on() -> None:
    plan = Plan(rates={}, epochs=1, batch_size=1, warmup=0.1, half_size=0.8)
    factors = [factor(plan, step, 100) for step in range(100)]  # 80 of a quarter and 20: 40 in all
    assert factors[:16] == pytest.approx([(n + 1) / 16 for n in range(16)])
    assert factors[80] == pytest.approx(factor(Plan(rates={}, epochs=1, batch_size=1, warmup=0.1), 20, 40))
    assert all(later < earlier for earlier, later in pairwise(factors[16:]))


def test_views_do_not_depend_on_the_number_of_workers() -> None:
    def content(workers: int) -> list[torch.Tensor]:
        loader = toys.loader(preset="standard", workers=workers, views=2)
        return [view for step in loader.epoch(1, 3) for batch in step for view in batch.views]

    for one, other in zip(content(0), content(2), strict=True):
        assert torch.equal(one, other)


def test_an_image_drawn_twice_in_an_epoch_is_augmented_twice() -> None:
    loader = toys.loader(count=1, batch_size=8, preset="standard")
    (batch,) = next(loader.epoch(0, 1))
    assert batch.index.tolist() == [0] * 8
    assert len({view.numpy().tobytes() for view in batch.images.contiguous()}) > 4


def test_views_do_not_depend_on_how_a_batch_is_cut() -> None:
    whole = next(toys.loader(preset="standard").epoch(0, 1))
    pieces = next(toys.loader(preset="standard", micro=4).epoch(0, 1))
    assert torch.equal(whole[0].images, torch.cat([piece.images for piece in pieces]))


def test_large_images_come_fewer_at_a_time() -> None:
    assert toys.loader(side=12).together == 512
    assert toys.loader(count=1, channels=3, side=224).together == 55
    assert [len(batch.index) for batch in toys.loader(count=40, channels=3, side=300).ordered()] == [
        32,
        8,
    ]


@pytest.mark.parametrize("large", [2**27, 1])
def test_a_map_as_trained_is_over_shuffled_views_and_its_results_come_in_order(
    large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LARGE", large)  # from 1 byte on they lie in a file

    class MapsEachEpoch(toys.Mean):
        def start_epoch(self, epoch: int, map_dataset: DatasetMap) -> Metrics:
            for as_trained in (False, True):
                found = map_dataset(lambda batch: batch.index[:, None], as_trained=as_trained)
                results.append(found.flatten().tolist())
            return {}

    results: list[list[int]] = []
    loader = toys.loader(preset="standard")
    shown = [batch.index for batch in loader.ordered(as_in=2)]
    assert torch.cat(shown).tolist() != list(range(24))
    train(MapsEachEpoch(), loader)
    assert results == [list(range(24))] * 6  # in each of three epochs, either way
    one, other = (
        {int(i): view for b in loader.ordered(e) for i, view in zip(b.index, b.images, strict=True)}
        for e in (2, None)
    )
    assert sum(torch.equal(one[i], other[i]) for i in range(24)) < 6  # a view may be the whole image


def test_validation_images_come_in_the_views_that_the_task_is_scored_on() -> None:
    class Pairs(toys.Mean):
        needs = Needs(views=2, scoring_views=3)

        def loss(self, batch: Batch, player: str) -> tuple[torch.Tensor, Metrics]:
            if not self.training:
                scored.append(batch)
            assert len(batch.views) == (2 if self.training else 3)
            return super().loss(batch, player)

    scored: list[Batch] = []
    loader = toys.loader(preset="standard", views=2)
    task = Pairs()
    fit(task, loader, plan_for(task), toys.CPU, Hooks(validation=loader))
    epochs = [scored[:3], scored[3:6], scored[6:]]  # three batches, as large as in training
    assert [batch.index.tolist() for batch in epochs[0]] == [[*range(8)], [*range(8, 16)], [*range(16, 24)]]
    assert not torch.equal(epochs[0][0].views[0], epochs[0][0].views[1])
    for one, other in ((epochs[0], epochs[1]), (epochs[0], epochs[2])):
        assert all(
            torch.equal(view, same)
            for first, second in zip(one, other, strict=True)
            for view, same in zip(first.views, second.views, strict=True)
        )


def test_epochs_and_views_differ() -> None:
    loader = toys.loader(preset="standard", views=2, batch_size=24)
    first = next(loader.epoch(0, 1))[0]
    second = next(loader.epoch(1, 1))[0]
    assert not torch.equal(first.views[0], first.views[1])
    assert not torch.equal(first.views[0][first.index.argsort()], second.views[0][second.index.argsort()])


def test_a_resumed_training_reports_its_last_epoch_again_with_the_same_time(tmp_path: Path) -> None:
    """A kill between the checkpoint and the tracker loses no point, and a second report makes no second one."""
    reported: list[tuple[float, float]] = []

    def killed(history: History) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt

    def report(history: History) -> None:
        reported.append((history[-1]["epoch"], history[-1]["ended"]))

    def run(hooks: Hooks, resume: bool) -> History:
        task, checkpointing = make("mean"), Checkpointing(tmp_path / "state.safetensors", resume=resume)
        return fit(task, toys.loader(), plan_for(task), toys.CPU, hooks, checkpointing)

    with pytest.raises(KeyboardInterrupt):
        run(Hooks(each_epoch=killed), resume=False)
    history = run(Hooks(each_epoch=report), resume=True)
    assert reported == [(2.0, history[1]["ended"]), (3.0, history[2]["ended"])]
