"""What the loop promises every task: hooks, players, freezing, accumulation and resuming to the same bits."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_app.data.loading import Loader
from ssl_app.errors import CheckpointError
from ssl_app.training import loop
from ssl_app.training.distributed import SingleProcess
from ssl_app.training.hardware import Hardware
from ssl_app.training.loop import Hooks, Diverged, fit
from ssl_app.training.optimizer import Plan, build_optimizer, factor, freeze
from ssl_app.training.resume import Row, Checkpointing
from ssl_app.training.signals import Stopped
from ssl_app.training.task import Task
from tests import toys


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


def train(task: Task, loader: Loader | None = None, checkpointing: Saver | None = None, **more: object) -> list[Row]:
    return fit(task, loader or toys.loader(), plan_for(task, **more), toys.CPU, checkpointing=checkpointing)


def bits(task: Task) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in task.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different


TASKS = ["mean", "self-labels", "new-head", "duel"]


class Interrupting(Task):
    """Stops a training after some number of losses, as a signal would between two steps."""


def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the loop see SIGTERM once `after` steps are done."""
    import signal

    from ssl_app.training import loop

    seen = {"steps": 0}
    original = loop._Run.step

    def step(self: object, *arguments: object) -> None:
        original(self, *arguments)
        seen["steps"] += 1
        if seen["steps"] == after:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop._Run, "step", step)


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_stopped_training_goes_on_to_the_same_bits(
    kind: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(kind)
    rows = train(whole, optimizer="adamw" if kind == "mean" else "sgd")
    broken = make(kind)
    path = tmp_path / "state.safetensors"
    with monkeypatch.context() as patch:
        interrupted(patch, after)
        with pytest.raises(Stopped):
            train(broken, checkpointing=Checkpointing(path), optimizer="adamw" if kind == "mean" else "sgd")
    torch.manual_seed(99)  # whatever the global generator holds
    resumed = make(kind)
    again = train(
        resumed, checkpointing=Checkpointing(path, resume=True), optimizer="adamw" if kind == "mean" else "sgd"
    )
    assert_same(bits(whole), bits(resumed))
    assert [row["epoch"] for row in again] == [1, 2, 3]
    for one, other in zip(rows, again, strict=True):
        assert one["loss_discriminate" if kind == "duel" else "loss"] == pytest.approx(
            other["loss_discriminate" if kind == "duel" else "loss"], rel=1e-12
        )


def test_resuming_under_other_threads_is_refused_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    train(make("mean"), checkpointing=Checkpointing(path))
    other = Hardware(torch.device("cpu"), False, "a test", 3)
    task = make("mean")
    with pytest.raises(CheckpointError, match="was trained with --threads 1, here it is 3"):
        fit(task, toys.loader(), plan_for(task), other, checkpointing=Checkpointing(path, resume=True))
    checkpointing = Checkpointing(path, resume=True, any_threads=True)
    assert fit(task, toys.loader(), plan_for(task), other, checkpointing=checkpointing)


def test_relabeling_happens_at_fractions_of_an_epoch_and_in_dataset_order() -> None:
    task = make("self-labels")
    rows = train(task)
    assert int(task.done) == 4
    assert [row.get("relabeled") for row in rows] == [2.0, 4.0, None]
    assert torch.bincount(task.labels).tolist() == [8, 8, 8]


def test_a_new_head_is_forgotten_by_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_app.training import loop

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


def test_warm_up_rises_and_cosine_falls_to_zero() -> None:
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

    with pytest.raises(Diverged, match=r"became nan within steps 0 to 3 of epoch 1; type a smaller --lr"):
        train(Nan())


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


def test_large_images_are_asked_fewer_at_a_time() -> None:
    assert toys.loader(side=12).together == 512
    assert toys.loader(count=1, channels=3, side=224).together == 55
    assert [len(batch.index) for batch in toys.loader(count=40, channels=3, side=300).ordered()] == [
        32,
        8,
    ]


def test_images_asked_as_trained_are_shuffled_views_whose_answers_come_in_order() -> None:
    loader = toys.loader(preset="standard")
    shown = [batch.index for batch in loader.ordered(as_in=2)]
    assert torch.cat(shown).tolist() != list(range(24))
    run = loop._Run(toys.Mean(), loader, Plan({"all": 0.1}, 1, 8), toys.CPU, SingleProcess(), None)
    for as_in in (None, 2):
        rows = run.map_batches(loader, lambda batch: batch.index[:, None], as_in)
        assert rows.flatten().tolist() == list(range(24))
    one, other = (
        {int(i): view for b in loader.ordered(e) for i, view in zip(b.index, b.images, strict=True)}
        for e in (2, None)
    )
    assert sum(torch.equal(one[i], other[i]) for i in range(24)) < 6  # a view may be the whole image


def test_epochs_and_views_differ() -> None:
    loader = toys.loader(preset="standard", views=2, batch_size=24)
    first = next(loader.epoch(0, 1))[0]
    second = next(loader.epoch(1, 1))[0]
    assert not torch.equal(first.views[0], first.views[1])
    assert not torch.equal(first.views[0][first.index.argsort()], second.views[0][second.index.argsort()])


def test_a_resumed_training_tells_of_its_last_row_again_with_the_same_time(tmp_path: Path) -> None:
    """A kill between the checkpoint and the tracker loses no point, and a second telling makes no second one."""
    told: list[tuple[float, float]] = []

    def killed(rows: list[Row]) -> None:
        if len(rows) == 2:
            raise KeyboardInterrupt

    def tell(rows: list[Row]) -> None:
        told.append((rows[-1]["epoch"], rows[-1]["ended"]))

    for each_epoch, resume in ((killed, False), (tell, True)):
        task, checkpointing = make("mean"), Checkpointing(tmp_path / "state.safetensors", resume=resume)
        try:
            rows = fit(task, toys.loader(), plan_for(task), toys.CPU, checkpointing=checkpointing, hooks=Hooks(each_epoch=each_epoch))  # fmt: skip
        except KeyboardInterrupt:
            continue
    assert told == [(2.0, rows[1]["ended"]), (3.0, rows[2]["ended"])]
