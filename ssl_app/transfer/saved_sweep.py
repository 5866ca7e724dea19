"""A sweep as it lies in its folder, finished or not: which trials it has, which are missing, what they answered."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_app import runs, tables
from ssl_app.checkpoints import SCRATCH
from ssl_app.evaluation.comparison import BASELINE, Answered, Trial
from ssl_app.evaluation.difference import ScoredPart, reuse_of
from ssl_app.transfer import kept_predictions
from ssl_app.transfer.sweep_identity import IDENTITY

DRAW = re.compile(r"k(?P<per_class>\d+)_d(?P<draw>\d+)(?:_f(?P<fold>\d+))?")


@dataclass(frozen=True, eq=False)
class SavedSweep:
    """What is on disk of a sweep. `result` is its result.json, `data` its data.json; None where one is not there."""

    folder: Path
    settings: Mapping[str, Any]
    result: Mapping[str, Any] | None
    data: Mapping[str, Any] | None

    @cached_property
    def planned(self) -> list[str]:
        """Keys of all trials, those of folds each; empty for a sweep that was stopped before it had an identity."""
        path = self.folder / IDENTITY
        inits = sorted(runs.read_json(path, {"inits": dict})["inits"]) if path.is_file() else []
        found = []
        for per_class, draw, fold, _ in self._draws():
            for init in inits:
                for strategy in self._strategies(init, per_class):
                    key = kept_predictions.key_of(init, strategy, per_class, draw)
                    found.append(key if fold is None else f"{key}-f{fold}")
        return found

    @cached_property
    def trials(self) -> list[dict[str, Any]]:
        """Results of the trials that have finished, without their tables."""
        if self.result is not None:
            return list(self.result["trials"])
        paths = [self.folder / "trials" / key / runs.RESULT for key in self.planned]
        return [runs.read_json(path, runs.OF_TRIAL) for path in paths if path.is_file()]

    @cached_property
    def missing(self) -> list[str]:
        """Keys of the trials that have not finished."""
        if self.result is not None:
            return []
        return [key for key in self.planned if not (self.folder / "trials" / key / runs.RESULT).is_file()]

    @property
    def pooled(self) -> list[str]:
        """The inits that the verdict is about; without a verdict the first one alone."""
        if self.result is not None and self.result.get("pooled") is not None:
            return list(self.result["pooled"])
        return [one["init"] for one in self.trials if one["init"] != SCRATCH][:1]

    @cached_property
    def tested(self) -> Answered | None:
        """What was answered for the test images, by trials that tested all of them; None where nothing can be read.

        Raises RunError where the file of predictions is damaged.
        """
        part = self._part()
        about = {(one["init"], one["strategy"], one["per_class"], one["draw"]) for one in self.trials}
        kept = kept_predictions.keys(self.folder)
        wanted = {one: kept_predictions.key_of(*one) for one in sorted(about)}
        wanted = {one: key for one, key in wanted.items() if key in kept}
        if part is None or not wanted:
            return None
        right = kept_predictions.right(self.folder, list(wanted.values()), part.labels)
        return Answered(part, {one: right[key] for one, key in wanted.items()}, self._reuse())

    def probabilities(self, trials: list[Trial]) -> dict[Trial, NDArray[np.float16]]:
        """What trials predicted, (N, K); those that are not kept are left out."""
        keys = {one: kept_predictions.key_of(*one) for one in trials}
        found = kept_predictions.probabilities(self.folder, list(keys.values()))
        return {one: found[key] for one, key in keys.items() if key in found}

    def _part(self) -> ScoredPart | None:
        """The test images: as gathered, or before that as the data's summary lists them."""
        gathered = kept_predictions.part(self.folder)
        if gathered is not None or self.data is None or not self.data.get("test"):
            return gathered
        test = self.data["test"]
        return ScoredPart(np.array(test["labels"], dtype=np.int64), np.array(test["groups"], dtype=np.int64))

    def _reuse(self) -> dict[int, float]:
        """What draws have in common, by labels per class: as it was reported, or as it will be."""
        if self.result is not None:
            return {int(budget): share for budget, share in self.result["labels_shared"].items()}
        classes = [] if self.data is None else self.data["classes"]
        drawn: dict[int, list[int]] = {}
        folds = 1
        for per_class, _, fold, path in self._draws():
            folds = max(folds, 1 if fold is None else fold + 1)
            if per_class not in drawn:
                header, rows = tables.read(path)
                labels = [row[header.index("label")] for row in rows]
                drawn[per_class] = [labels.count(name) for name in classes]
        parts = {} if self.data is None else self.data["parts"]
        pool = parts.get("training" if folds == 1 else "test", {}).get("per_class", ())
        return {per_class: reuse_of(own, pool, folds) for per_class, own in drawn.items()}

    def _draws(self) -> Iterator[tuple[int, int, int | None, Path]]:
        """(labels per class, number, fold, file) of every labeled draw."""
        for path in sorted((self.folder / "draws").glob("*.csv")):
            found = DRAW.fullmatch(path.stem)
            if found is not None:
                fold = None if found["fold"] is None else int(found["fold"])
                yield int(found["per_class"]), int(found["draw"]), fold, path

    def _strategies(self, init: str, per_class: int) -> tuple[str, ...]:
        """Those of an initialization at one size, as the sweep plans them."""
        usual = per_class in self.settings["per_class"]
        if init != SCRATCH:
            return tuple(self.settings["strategy"]) if usual else ()
        return (BASELINE, *(self.settings["baseline_strategy"] if usual else ()))
