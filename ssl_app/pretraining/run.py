"""One pretraining: inputs, method and schedule brought together, trained, and written as a checkpoint."""

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app import config, console
from ssl_app.data import transforms
from ssl_app.data.loading import Batching, ImageRows, Loader
from ssl_app.data.overlap import merged, seen
from ssl_app.data.seeding import mix
from ssl_app.data.transforms import Augmentation, Frame
from ssl_app.errors import Notice
from ssl_app.evaluation.features import effective_rank, feature_std
from ssl_app.pretext.base import Pretext
from ssl_app.pretraining import features
from ssl_app.pretraining.health import Scores, collapse, score_warning
from ssl_app.pretraining.inputs import FEW, Inputs, PretrainSpec
from ssl_app.pretraining.schedule import defaults_of, describe, plan_of, resizing_of, resolved, too_short
from ssl_app.pretraining.selection import spaced
from ssl_app.pretraining.time_budget import SHARE, TRIED, Cost, Trial, described, length_within
from ssl_app.pretraining.views import VIEWED, VIEWS, views_of
from ssl_app.report import plots
from ssl_app.tracking import Run as TrackedRun
from ssl_app.training.distributed import SingleProcess
from ssl_app.training.hardware import Hardware, cores
from ssl_app.training.history import EpochMetrics, History
from ssl_app.training.inference import recalibrate_on
from ssl_app.training.initialization import BACKBONE, Initialization, load_initialization, write_backbone
from ssl_app.training.loop import Hooks, fit
from ssl_app.training.optimizer import Plan
from ssl_app.training.precision import measured
from ssl_app.training.progressive_resizing import Resizing
from ssl_app.training.resume import Checkpointing, seconds_so_far

logger = logging.getLogger(__name__)

TRAINING = "training.safetensors"  # the state that a resumed run goes on from
MONITORED = 256  # images that features are measured on, each epoch
SHOWN = 12  # images of a method's pictures


@dataclass(frozen=True)
class Pretraining:
    """A method on its inputs, with a plan: what is settled before the first step."""

    inputs: Inputs
    task: Pretext[object]
    plan: Plan
    hardware: Hardware
    group: SingleProcess

    @classmethod
    def prepare(cls, spec: PretrainSpec, hardware: Hardware, group: SingleProcess) -> "Pretraining":
        """Open the data, build the network, and refuse what cannot work, before anything is trained."""
        inputs = Inputs.gather(spec, group)
        hardware = group.leader_first(lambda: measured(hardware, inputs.backbone, spec.data.cache))  # all alike
        resizing = resizing_of(spec.schedule, spec.name, spec.method, inputs.backbone)
        if spec.budget is not None and spec.schedule.epochs is None:
            inputs, resizing = cls._within_budget(inputs, resizing, hardware, group)
        work = cls.of(inputs, hardware, group)
        planned = work.plan.epochs * work.steps
        resizing = resizing.within(planned)
        work = work._resized(resizing.share)
        describe(spec.schedule, defaults_of(spec.method, inputs.backbone.optimizer), work.plan, len(inputs.train))
        logger.info(resizing.sentence(spec.pixels.size))
        if work.too_short is not None:
            logger.warning(work.too_short.prefixed("warning: "))
        for note in [*inputs.notes, *work.task.notes]:
            logger.info(note.prefixed("note: "))
        return work

    @classmethod
    def of(cls, inputs: Inputs, hardware: Hardware, group: SingleProcess) -> "Pretraining":
        """With a task as it begins."""
        spec = inputs.spec
        preferred = inputs.backbone.optimizer
        plan = plan_of(spec.schedule, spec.method, len(inputs.train), group.world, preferred)
        torch.manual_seed(mix(spec.seed, 6) >> 1)
        task = spec.method(copy.deepcopy(inputs.backbone), spec.config, inputs.training_set(plan.epochs))
        schedule = resolved(spec.schedule, defaults_of(spec.method, preferred), plan)
        return cls(replace(inputs, spec=replace(spec, schedule=schedule)), task, plan, hardware, group)

    @classmethod
    def _within_budget(
        cls, inputs: Inputs, resizing: Resizing, hardware: Hardware, group: SingleProcess
    ) -> tuple[Inputs, Resizing]:
        """With the length that the time allows; timed once more where so long a training has larger batches."""
        spec = inputs.spec
        assert spec.budget is not None
        logger.info(f"budget of {described(spec.budget)}: a few steps are timed first")
        batch, epochs, steps = spec.schedule.batch_size, 1, 1
        for _ in range(2):
            schedule = replace(spec.schedule, epochs=1, batch_size=batch)
            tried = replace(spec, schedule=schedule, config=spec.method.for_one_epoch(spec.config))
            one = cls.of(replace(inputs, spec=tried), hardware, group)
            cost, full = group.broadcast(one._costs(resizing.share))
            epochs, steps = length_within(spec.budget, cost, one.steps)
            if resizing.within(epochs * steps) != resizing:
                resizing = resizing.within(epochs * steps)
                epochs, steps = length_within(spec.budget, full, one.steps)
            longer = replace(spec.schedule, epochs=epochs)
            batch = plan_of(longer, spec.method, len(inputs.train), group.world).batch_size
            if batch == one.plan.batch_size:
                break
        found = replace(spec.schedule, epochs=epochs, steps_per_epoch=steps, batch_size=one.plan.batch_size)
        return replace(inputs, spec=replace(spec, schedule=found)), resizing

    def _costs(self, share: float) -> tuple[Cost, Cost]:
        """What an epoch costs where so large a share of the steps is at half the side, and in full."""
        budget = self.inputs.spec.budget
        assert budget is not None
        most = SHARE * budget / (2 if share else 1)
        full = Cost.timed(self._trial(0.0), self.hardware, most)
        return (full.after(Cost.timed(self._trial(1.0), self.hardware, most), share) if share else full), full

    def _trial(self, half_size: float) -> Trial:
        """One epoch of a few steps on a copy of the task."""
        plan = replace(self.plan, epochs=1, steps_per_epoch=TRIED, half_size=half_size)
        tried = replace(self, task=copy.deepcopy(self.task), plan=plan, inputs=replace(self.inputs, monitor=None))
        loader, hooks = tried._loader(tried._training_rows), tried._hooks()

        def train() -> None:
            with console.muted():
                fit(tried.task, loader, plan, self.hardware, hooks, None, self.group)

        return Trial(tried.task, train, self.group.world == 1)

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return self.plan.steps_per_epoch or self._loader(self._training_rows).steps

    def _resized(self, share: float) -> "Pretraining":
        """With so large a share of the steps at half the side."""
        spec = self.inputs.spec
        schedule = replace(spec.schedule, progressive_resizing=share)
        inputs = replace(self.inputs, spec=replace(spec, schedule=schedule))
        return replace(self, inputs=inputs, plan=replace(self.plan, half_size=share))

    def train(
        self, folder: Path, checkpointing: Checkpointing, tracked: TrackedRun, stored: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Train to the end. `stored` are the settings of the run, for the checkpoint.

        -> what result.json adds: checkpoint, training_seconds, final, chance, warning, unreadable.
        """
        inputs, task = self.inputs, self.task
        before = seconds_so_far(folder / TRAINING)
        if self.group.rank == 0 and not (folder / VIEWS).is_file():
            tracked.artifact(self.draw_views(folder / VIEWS))
        if task.score is not None and self.chance is not None:
            logger.info(f"chance: a network that knows nothing has {task.score} {self.chance:.3f}")
        few = len(inputs.validation)
        if 0 < few < FEW:
            held = "1 image is" if few == 1 else f"{few} images are"
            logger.info(f"note: {held} held out for validation, too few for a warning by the score")
        began = time.monotonic()
        hooks = replace(self._hooks(), each_epoch=_Reporter(self, tracked))
        checkpointing = replace(checkpointing, fingerprints=self._fingerprints())
        history = fit(
            task, self._loader(self._training_rows), self.plan, self.hardware, hooks, checkpointing, self.group
        )
        seconds = before + time.monotonic() - began
        self._write_checkpoint(folder, history, stored)
        if self.group.rank == 0:
            for path in self._draw(folder, history):
                tracked.artifact(path)
        return {
            "checkpoint": str(folder / BACKBONE),
            "training_seconds": seconds,  # of all runs that it took
            "final": plain(history[-1]),
            "chance": self.chance,  # of the method's score, where it is known
            "warning": next(iter(self.warnings(history).values()), None),
            "unreadable": list(inputs.dataset.unreadable),
        }

    @property
    def chance(self) -> float | None:
        """The score of the validation images by a network that knows nothing, in the batches that they come in."""
        trained_on, held = self.plan.batch_size // self.plan.accumulate, len(self.inputs.validation)
        return self.task.chance_at(max(1, min(trained_on, held or trained_on) // self.group.world))

    @property
    def _training_rows(self) -> ImageRows:
        return self.inputs.rows(self.inputs.train)

    def _hooks(self) -> Hooks:
        validation = self.inputs.validation
        return Hooks(
            self.inputs.spec.name,
            self._loader(self.inputs.rows(validation)) if len(validation) else None,
            self._measure,
        )

    @property
    def too_short(self) -> Notice | None:
        """The warning of too few steps, known before the first."""
        spec, epochs = self.inputs.spec, self.plan.epochs
        own = defaults_of(spec.method, self.inputs.backbone.optimizer)
        return too_short(spec.name, own, epochs * self.steps, spec.budget, epochs)

    def warnings(self, history: History) -> dict[str, Notice]:
        """What deserves attention after these epochs, by what it is about; the gravest first."""
        task, epochs, name = self.task, self.plan.epochs, self.inputs.spec.name
        ranks, stds = [one["effective_rank"] for one in history], [one["feature_std"] for one in history]
        found: dict[str, Notice | None] = {"features": collapse(ranks, stds, epochs, name)}
        if task.limits is not None and task.score is not None and len(self.inputs.validation) >= FEW:
            scores = Scores([one[f"val_{task.score}"] for one in history], epochs, self.steps, self.chance)
            found["score"] = score_warning(scores, task.limits, name)
        found["method"] = task.warning(history)
        return {kind: notice for kind, notice in found.items() if notice is not None}

    def _measure(self, epoch: int) -> EpochMetrics:
        """What the features look like, of images that are not trained on where there are enough of them."""
        inputs, task, hardware = self.inputs, self.task, self.hardware
        if task.recalibrates_batch_norm:  # as the checkpoint will be
            task = copy.deepcopy(task)
            recalibrate_on(task.backbone, inputs.rows(spaced(inputs.train, MONITORED)), hardware)
        found = features.pooled(task, inputs.rows(spaced(inputs.monitored, MONITORED)), hardware, self.group)
        metrics = {"effective_rank": effective_rank(found), "feature_std": feature_std(found)}
        every = inputs.spec.probe_every or max(1, self.plan.epochs // 10)
        due = epoch % every == every - 1 or epoch == self.plan.epochs - 1
        if inputs.monitor is not None and due and np.isfinite(found).all():
            scores = inputs.monitor.scores(task, inputs.scaling, hardware, self.group)
            metrics |= {f"probe_{name}": score for name, score in scores.items()}
        return metrics

    def _fingerprints(self) -> dict[str, str]:
        """What a resumed run must find as it was."""
        inputs = self.inputs
        indices = np.concatenate([inputs.train, [-1], inputs.validation])
        return {
            "images": f"{inputs.dataset.hash} {blake2b(indices.tobytes(), digest_size=8).hexdigest()}",
            "pixels": repr(inputs.scaling.to_json()),
            **self.task.fingerprints,
        }

    def _loader(self, rows: ImageRows) -> Loader:
        spec, group = self.inputs.spec, self.group
        workers = spec.workers
        if workers is None:  # on a CPU a worker takes the core that the network needs
            workers = 0 if self.hardware.device.type == "cpu" else min(8, max(1, cores() - 1))
        views, micro = self.task.needs.views, self.plan.accumulate * group.world
        batching = Batching(self.plan.batch_size, spec.seed, views, micro, group.rank, group.world, workers)
        return Loader(rows, self._augmentation(rows.frame), batching)

    def _augmentation(self, frame: Frame) -> Augmentation:
        """The user's, or the method's own."""
        named = self.inputs.spec.augment
        return self.task.augmentation(frame) if named is None else transforms.preset(named, frame)

    def draw_views(self, path: Path) -> Path:
        """Draw some images, their random views, and what the method gives of them to the network."""
        inputs, spec = self.inputs, self.inputs.spec
        rows = inputs.rows(spaced(inputs.train, VIEWED))
        loader = Loader(rows, self._augmentation(rows.frame), Batching(len(rows.indices), spec.seed))
        side, augment = spec.pixels.size, spec.augment or self.task.defaults.augment or f"{spec.name}'s own"
        more = f"Augmentation: {augment}; {side} x {side} pixels"
        half = f", and half the side in the first {self.plan.half_size:.0%} of the steps" * (self.plan.half_size > 0)
        return views_of(self.task, loader).draw(path, inputs.scaling, spec.name, f"{more}{half}.")

    def _draw(self, folder: Path, history: History) -> list[Path]:
        """Pictures of the run: its curves, and the method's own."""
        chance = {} if self.task.score is None or self.chance is None else {self.task.score: self.chance}
        curves = [{k: v for k, v in one.items() if k != "ended"} for one in history]
        plots.history(folder / "history.png", curves, chance)
        own = []
        for name, pictures in self._pictures().items():
            own.append(folder / f"{name}.png")
            plots.rows_of_pictures(own[-1], pictures)
        return [folder / "history.png", *own]

    def _pictures(self) -> dict[str, NDArray[np.float32]]:
        """The method's own pictures, (n, m, S, S, C) in [0, 1]."""
        loader = self._loader(self.inputs.rows(spaced(self.inputs.monitored, SHOWN)))
        self.task.eval()
        with torch.no_grad():
            batch = next(loader.ordered()).to(self.hardware.device, self.hardware.memory_format)
            found = self.task.pictures(batch)
        arrays = {name: pictures.float().cpu().permute(0, 1, 3, 4, 2).numpy() for name, pictures in found.items()}
        return {name: self._visible(pictures) for name, pictures in arrays.items()}

    def _visible(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """From a network's input back to [0, 1]."""
        scaling = self.inputs.scaling
        mean, std = np.asarray(scaling.mean, np.float32), np.asarray(scaling.std, np.float32)
        visible: NDArray[np.float32] = np.clip(images * std + mean, 0, 1)
        return visible

    def _write_checkpoint(self, folder: Path, history: History, stored: Mapping[str, Any]) -> None:
        inputs, dataset = self.inputs, self.inputs.dataset
        if self.group.rank:
            return
        ancestors = self._ancestors()
        meta = {
            "backbone": self.task.backbone.name,
            "channels": self.task.backbone.channels,
            "image_size": inputs.spec.pixels.size,
            "pack_side": int(dataset.images.shape[1]),
            "ancestry_known": all(ancestor.ancestry_known for ancestor in ancestors),
            "labels_learned": self.task.labels_learned + sum(one.labels_learned for one in ancestors),
            "method": inputs.spec.name,
            "settings": dict(stored)
            | {
                "method_settings": config.as_json(inputs.spec.config),
                "data_hash": dataset.hash,
                "data_state": dataset.state,
            },
            "data": {"name": dataset.name, "hash": dataset.hash, "images": len(inputs.train)},
            "history": history,
            "doubts": [one.found for one in (*self.warnings(history).values(), self.too_short) if one is not None],
            "versions": {name: version(name) for name in ("ssl-app", "torch", "torchvision")},
        }
        met = seen(dataset, np.concatenate([inputs.train, inputs.validation]))
        for ancestor in ancestors:  # what they saw is in the weights as well
            if ancestor.seen is not None:
                met = merged(met, ancestor.seen)
        write_backbone(folder / BACKBONE, self.task, inputs.scaling, met, meta)

    def _ancestors(self) -> list[Initialization]:
        """Whose weights these go back to: what was started from, and the run whose labels are learned."""
        start, file = self.inputs.spec.initialization, self.task.teacher_file
        if file is None or not (file.parent / BACKBONE).is_file():
            return [start]
        return [start, load_initialization(str(file.parent / BACKBONE), file.parent, None)]


class _Reporter:
    """Sends each epoch's metrics to tracking, and logs warnings when they begin and when they end."""

    def __init__(self, work: Pretraining, tracked: TrackedRun) -> None:
        self.work, self.tracked = work, tracked
        self.standing: set[str] = set()

    def __call__(self, history: History) -> None:
        self.tracked.metrics(plain(history[-1]), len(history), history[-1]["ended"])
        found = self.work.warnings(history)
        for kind in sorted(self.standing - found.keys()):
            logger.warning(f"the warning about the {kind} no longer holds")
        for kind in [kind for kind in found if kind not in self.standing]:
            logger.warning(found[kind].prefixed("warning: "))
        self.standing = set(found)


def plain(metrics: EpochMetrics) -> EpochMetrics:
    """An epoch's metrics, without which epoch it was and when it ended."""
    return {k: v for k, v in metrics.items() if k not in ("epoch", "ended")}
