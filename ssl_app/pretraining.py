"""One pretraining: images, method and backbone brought together, trained, and handed over."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_app import config, handover, inference
from ssl_app.choosing import spaced
from ssl_app.data.leaks import merged, seen
from ssl_app.data.loading import Loader
from ssl_app.data.seeding import mix
from ssl_app.data.transforms import Augment
from ssl_app.evaluation.features import effective_rank, spread
from ssl_app.material import FEW, Material
from ssl_app.pacing import TRIED, length_within
from ssl_app.planning import plan_of, resolved
from ssl_app.pretext.base import Pretext
from ssl_app.report import plots
from ssl_app.runs import Say, out_flag
from ssl_app.settings import PretrainSettings
from ssl_app.tracking import open_tracker
from ssl_app.training.distributed import OneProcess
from ssl_app.training.hardware import Hardware, cores
from ssl_app.training.health import alarm, collapse
from ssl_app.training.loop import fit
from ssl_app.training.optimizing import Plan
from ssl_app.training.saving import Row, Saver, seconds_so_far
from ssl_app.training.stopping import Stopped

TRAINING = "training.safetensors"  # the state that --resume goes on from
WATCHED = 256  # images that features are watched on, each epoch
SHOWN = 12  # images of a method's pictures


@dataclass(frozen=True)
class Pretraining:
    """A method on its material, with a plan: what is settled before the first step."""

    settings: PretrainSettings
    own: object  # the method's Config
    material: Material
    task: Pretext
    plan: Plan
    hardware: Hardware
    group: OneProcess

    @classmethod
    def prepare(
        cls,
        settings: PretrainSettings,
        method: type[Pretext],
        own: object,
        hardware: Hardware,
        group: OneProcess,
        say: Say,
    ) -> "Pretraining":
        """Open the data, build the network, and refuse what cannot work, before anything is trained."""
        material = Material.gather(settings, method, own, group, say)
        settings = material.settings
        if settings.budget is not None and settings.epochs is None:
            settings = cls._within_budget(settings, own, material, hardware, group, say)
        work = cls.of(settings, own, material, hardware, group)
        for note in [*material.notes, *work.task.notes]:
            say(f"note: {note}")
        return work

    @classmethod
    def of(
        cls, settings: PretrainSettings, own: object, material: Material, hardware: Hardware, group: OneProcess
    ) -> "Pretraining":
        """With a task as it begins."""
        method, images = material.method, len(material.learnt)
        torch.manual_seed(mix(settings.seed, 6) >> 1)
        task = method(copy.deepcopy(material.backbone), own, material.scope(settings.epochs or method.epochs))
        plan = plan_of(settings, method, images, group.world)
        told = resolved(settings, method, plan, material.image_size)
        return cls(told, own, material, task, plan, hardware, group)

    @classmethod
    def _within_budget(
        cls,
        settings: PretrainSettings,
        own: object,
        material: Material,
        hardware: Hardware,
        group: OneProcess,
        say: Say,
    ) -> PretrainSettings:
        """With the length that --budget allows; timed once more where so long a training has larger batches."""
        method, images = material.method, len(material.learnt)
        batch, epochs = settings.batch_size, 1
        for _ in range(2):
            tried = replace(settings, epochs=1, batch_size=batch)
            one = cls.of(tried, method.for_one_epoch(own), material, hardware, group)
            epochs, steps = group.share(one._length(say))
            batch = plan_of(replace(settings, epochs=epochs), method, images, group.world).batch_size
            if batch == one.plan.batch_size:
                break
        return replace(settings, epochs=epochs, steps_per_epoch=steps, batch_size=one.plan.batch_size)

    def _length(self, say: Say) -> tuple[int, int]:
        """Epochs, and steps of each, that --budget allows."""
        assert self.settings.budget is not None
        plan = replace(self.plan, epochs=1, steps_per_epoch=TRIED)
        tried = replace(self, task=copy.deepcopy(self.task), plan=plan, material=replace(self.material, probe=None))
        steps = self._loader(self.material.learnt, "none").steps
        budget, alone = self.settings.budget, self.group.world == 1
        return length_within(budget, tried.task, lambda: tried._fit(_unsaid), steps, self.hardware, say, alone=alone)

    def train(self, folder: Path, say: Say) -> dict[str, Any]:
        """Train to the end.

        -> what result.json adds: checkpoint, training_seconds, final, chance, alarm, unreadable.
        """
        settings, dataset, group = self.settings, self.material.dataset, self.group
        before = seconds_so_far(folder / TRAINING)
        uri = settings.tracking_uri if group.rank == 0 else "none"
        tracker = group.agree(lambda: open_tracker(settings.out, uri, "ssl-app"))
        say(f"tracking: {tracker.where}")
        params = {k: v for k, v in vars(settings).items() if k not in ("out", "name", "resume", "tracking_uri")}
        tracked = tracker.start(folder.name, folder, params | config.as_json(self.own), {"verb": "pretrain"})
        tracked.data(dataset.name, dataset.hash, "pretraining")
        if self.task.score is not None and self.task.chance is not None:
            say(f"{self.task.score} is {self.task.chance:.3f} where nothing has been learnt")
        few = len(self.material.held_out)
        if 0 < few < FEW:
            held = "1 image is" if few == 1 else f"{few} images are"
            say(f"note: {held} held out, too few for an alarm by the score")
        rang: set[str] = set()

        def each_epoch(rows: list[Row]) -> None:
            tracked.metrics(_plain(rows[-1]), len(rows), rows[-1]["ended"])
            alarms = self._alarms(rows)
            for kind in sorted(rang - alarms.keys()):
                say(f"the alarm about the {kind} no longer stands")
            for kind in [kind for kind in alarms if kind not in rang]:
                say(f"alarm: {alarms[kind]}")
            rang.clear()
            rang.update(alarms)

        status, began = "FAILED", time.monotonic()
        try:
            rows = self._fit(say, each_epoch, self._saver(folder))
            seconds = before + time.monotonic() - began
            self._hand_over(folder, rows)
            status = "FINISHED"
            if group.rank == 0:
                drawn = self._draw(folder, rows)
                for path in (folder / handover.BACKBONE, *drawn):
                    tracked.artifact(path)
        except Stopped:
            status = "KILLED"
            say(f"stopped; type ssl-app pretrain --resume {folder.name}{out_flag(settings.out)} to go on")
            raise
        finally:
            tracked.finish(status)
        return {
            "checkpoint": str(folder / handover.BACKBONE),
            "training_seconds": seconds,  # of all runs that it took
            "final": _plain(rows[-1]),
            "chance": self.task.chance,  # of the method's score, where it is known
            "alarm": next(iter(self._alarms(rows).values()), None),
            "unreadable": list(dataset.unreadable),
        }

    def _draw(self, folder: Path, rows: list[Row]) -> list[Path]:
        """Pictures of the run: its curves, what the network was shown, and what the method has to show."""
        chance = {} if self.task.score is None or self.task.chance is None else {self.task.score: self.task.chance}
        curves = [{k: v for k, v in row.items() if k != "ended"} for row in rows]
        plots.history(folder / "history.png", curves, chance)
        pixels, loader = self.material.pixels, self._loader(self.material.learnt, self.settings.augment)
        shown = np.concatenate([batch.images.permute(0, 2, 3, 1).numpy() for batch in next(loader.epoch(0, 1))])[:36]
        plots.augmentations(folder / "views.png", np.clip(shown * pixels.std + pixels.mean, 0, 1))
        own = []
        for name, pictures in self._pictures().items():
            own.append(folder / f"{name}.png")
            plots.rows_of_pictures(own[-1], pictures)
        return [folder / "history.png", folder / "views.png", *own]

    def _pictures(self) -> dict[str, NDArray[np.float32]]:
        """The method's own pictures, (n, m, S, S, C) in [0, 1]."""
        loader = self._loader(spaced(self.material.watched, SHOWN), "none")
        self.task.eval()
        with torch.no_grad():
            batch = next(loader.ordered()).to(self.hardware.device, self.hardware.memory_format)
            found = self.task.pictures(batch)
        arrays = {name: pictures.float().cpu().permute(0, 1, 3, 4, 2).numpy() for name, pictures in found.items()}
        pixels = self.material.pixels
        mean, std = np.asarray(pixels.mean, np.float32), np.asarray(pixels.std, np.float32)
        return {name: np.clip(pictures * std + mean, 0, 1) for name, pictures in arrays.items()}

    def _alarms(self, rows: list[Row]) -> dict[str, str]:
        """What rings after these epochs, by what it is about; the gravest first."""
        task, epochs, method = self.task, self.plan.epochs, self.settings.method
        found = {"features": collapse([r["directions"] for r in rows], [r["spread"] for r in rows], epochs, method)}
        if task.limits is not None and task.score is not None and len(self.material.held_out) >= FEW:
            scores = [row[f"val_{task.score}"] for row in rows]
            steps = self.plan.steps_per_epoch or self._loader(self.material.learnt, "none").steps
            found["score"] = alarm(scores, epochs, task.limits, method, task.chance, steps)
        found["method"] = task.alarm(rows)
        return {kind: told for kind, told in found.items() if told is not None}

    def _watch(self, epoch: int) -> Row:
        """What the features look like, of images that are not trained on where there are enough of them."""
        material, task, hardware = self.material, self.task, self.hardware
        images, pixels, probe = material.dataset.images, material.pixels, material.probe
        if task.recalibrates:  # as it would be handed on
            task = copy.deepcopy(task)
            inference.settle(task.backbone, spaced(material.learnt, WATCHED), images, pixels, hardware)
        found = inference.pooled(task, spaced(material.watched, WATCHED), images, pixels, hardware)
        row = {"directions": effective_rank(found), "spread": spread(found)}
        every = self.settings.probe_every or max(1, self.plan.epochs // 10)
        due = epoch % every == every - 1 or epoch == self.plan.epochs - 1
        if probe is not None and due and np.isfinite(found).all():
            row["probe_knn"] = probe.score(task, pixels, hardware)
        return row

    def _fit(
        self, say: Say, each_epoch: Callable[[list[Row]], None] = lambda rows: None, saver: Saver | None = None
    ) -> list[Row]:
        held_out = self.material.held_out
        return fit(
            self.task,
            self._loader(self.material.learnt, self.settings.augment),
            self.plan,
            self.hardware,
            title=self.settings.method,
            say=say,
            group=self.group,
            held_out=self._loader(held_out, "none") if len(held_out) else None,
            watch=self._watch,
            each_epoch=each_epoch,
            saver=saver,
        )

    def _saver(self, folder: Path) -> Saver:
        settings = self.settings
        return Saver(
            folder / TRAINING, settings.save_every, settings.resume is not None, settings.any_threads, self._about()
        )

    def _about(self) -> dict[str, str]:
        """What a resumed run must find as it was."""
        material = self.material
        rows = np.concatenate([material.learnt, [-1], material.held_out])
        return {
            "images": f"{material.dataset.hash} {blake2b(rows.tobytes(), digest_size=8).hexdigest()}",
            "pixels": repr(material.pixels.to_json()),
            **self.task.given,
        }

    def _loader(self, rows: NDArray[np.int64], preset: Any) -> Loader:
        settings, material, dataset = self.settings, self.material, self.material.dataset
        mirror = dataset.mirrors if settings.mirror is None else settings.mirror
        workers = settings.workers
        if workers is None:  # on a CPU a worker takes the core that the network needs
            workers = 0 if self.hardware.device.type == "cpu" else min(8, max(1, cores() - 1))
        return Loader(
            dataset.images,
            rows,
            material.pixels,
            Augment(preset, material.image_size, dataset.images.shape[1], mirror),
            batch_size=self.plan.batch_size,
            seed=settings.seed,
            views=self.task.needs.views,
            micro=self.plan.accumulate * self.group.world,
            rank=self.group.rank,
            world=self.group.world,
            workers=workers,
        )

    def _hand_over(self, folder: Path, rows: list[Row]) -> None:
        settings, material, dataset = self.settings, self.material, self.material.dataset
        if self.group.rank:
            return
        meta = {
            "backbone": self.task.backbone.name,
            "channels": self.task.backbone.channels,
            "image_size": material.image_size,
            "pack_side": int(dataset.images.shape[1]),
            "ancestry_known": all(ancestor.ancestry_known for ancestor in self._ancestors()),
            "method": settings.method,
            "settings": config.as_json(settings)
            | {"method_settings": config.as_json(self.own), "data_hash": dataset.hash},
            "data": {"name": dataset.name, "hash": dataset.hash, "images": len(material.learnt)},
            "rows": rows,
            "versions": {name: version(name) for name in ("ssl-app", "torch", "torchvision")},
        }
        met = seen(dataset, np.concatenate([material.learnt, material.held_out]))
        for ancestor in self._ancestors():  # what they saw is in the weights as well
            if ancestor.seen is not None:
                met = merged(met, ancestor.seen)
        handover.write_backbone(folder / handover.BACKBONE, self.task, material.pixels, met, meta)

    def _ancestors(self) -> list[handover.Initialization]:
        """Whose weights these go back to: what was started from, and the run whose labels are learnt."""
        file = self.task.learnt_from
        teacher = None if file is None else file.parent / handover.BACKBONE
        if teacher is None or not teacher.is_file():
            return [self.material.start]
        return [self.material.start, handover.load_initialization(str(teacher), self.settings.out, None)]


def _plain(row: Row) -> Row:
    """An epoch's metrics, without which epoch it was and when it ended."""
    return {k: v for k, v in row.items() if k not in ("epoch", "ended")}


def _unsaid(sentence: str) -> None:
    """What is said of a trial."""
