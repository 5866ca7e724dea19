"""Auto: the mean of several classifiers, frozen and trained, so that nobody has to choose a strategy by few labels.

Plain averages beat the best single candidate, and the one that folds inside the draw choose (docs/results.md).
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch

from ssl_app.config import option
from ssl_app.data.seeding import mix
from ssl_app.errors import Set, SettingsError
from ssl_app.evaluation.features import effective_rank, feature_std
from ssl_app.models import backbones
from ssl_app.models.backbones.base import JOINED
from ssl_app.models.heads import build_head
from ssl_app.training.classifier import Classifier
from ssl_app.training.ensemble import Ensemble
from ssl_app.training.inference import probabilities
from ssl_app.transfer.draw import Draw, Further
from ssl_app.transfer.fitting import Fitted, Phase, Stage, convex, fill_in, head_by_propagation, train
from ssl_app.transfer.semi_supervised import COST, targets_of_both
from ssl_app.transfer.strategies.base import Budget, NoSettings, Strategy
from ssl_app.transfer.strategies.fixmatch import Fixmatch, FixmatchConfig
from ssl_app.transfer.strategies.full_fine_tuning import FullFineTuning
from ssl_app.transfer.strategies.self_training import GivenTargets
from ssl_app.transfer.strategies.two_stage import SMALL, TwoStage

# labels per class, from which on there are more members. Below it logistic heads cost: the mean with them had .620
# and .709 at 1 and 4 labels per class where propagation alone had .635 and .716 (chest-xray, SeLa, validation images,
# 8 draws), on steel .826 and .929 for .829 and .933 (10), on digits the same. With 8 the mean with them and FixMatch
# had .735 and .950, propagation alone .738 and .954 (4 draws), in a hundredth of the time
TRAINED_FROM = 16
# say of all frozen ones together, where a trained one has 1: as much with 16 labels per class, and as many times less
# as there are more, since trained ones gain by them (neu-steel at 32: FixMatch .976, frozen .908). Where the
# pretraining ended with a warning nothing was measured
FROZEN, DOUBTED = 1.0, 0.5
LEAST_RANK, LEAST_STD = 1.5, 0.02  # effective rank and std of features, below which a pretraining has collapsed
JUDGED, FEWEST_JUDGED = 512, 6  # images that the features are judged on, at most and at least


@dataclass(frozen=True)
class AutoConfig:
    """Settings of auto."""

    distill: bool = option(
        False, "train one network on what the mean says of the unlabeled images, and predict with it alone"
    )


class Auto(Strategy[AutoConfig]):
    """Frozen: label propagation on the last layer and on the last two. From 16 labels per class on logistic heads on
    both as well, and trained: FixMatch from the pretraining, two-stage where no image is unlabeled. All frozen ones
    together have as much say as it with 16 labels per class, and half as much with 32.
    Of several pretrainings (`A+B`) all give frozen candidates; what is trained starts from the first.

    Scratch joins where the pretraining ended with a warning, so that a bad one costs time and little else: always, it
    would cost 2.5 to 3.5 points (chest-xray, 8 labels per class). A draw has too few labels to choose by: at 8 per
    class of three classes a fold holds five. Where features have collapsed it is scratch alone, and from random
    weights full fine-tuning.
    """

    Config = AutoConfig
    trainings = 3

    def fit(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """All candidates. Raises SettingsError for a head that has to be trained in steps."""
        if not budget.pretrained:
            return FullFineTuning(NoSettings()).fit(classifier, draw, budget)
        if not budget.linear:
            raise SettingsError(
                "auto fits linear heads, the head is an mlp",
                fix=(Set("strategy", "two-stage"), Set("head", "linear")),
            )
        collapsed = _collapse(classifier, draw)
        if collapsed is not None:
            scratch, stage = _from_scratch(classifier, draw, budget)
            why = Stage("scratch alone: the pretraining has collapsed", warnings=(f"auto: {collapsed}",))
            return Fitted(Ensemble([scratch]), [why, stage])
        found = self._averaged(classifier, draw, budget)
        if not self.config.distill:
            return found
        student, stage = _distilled(classifier, found.predictor, draw, budget)
        return Fitted(Ensemble([student]), [*found.stages, stage])

    def _averaged(self, classifier: Classifier, draw: Draw, budget: Budget) -> Fitted:
        """The mean of all candidates."""
        several = budget.per_class >= TRAINED_FROM
        frozen, stages = _frozen(classifier, draw, several), []
        for one in draw.further:
            found, collapsed = _frozen_beside(classifier, one, draw, several)
            frozen += found
            if collapsed is not None:
                stages.append(Stage(f"{one.name} is left out", warnings=(f"auto, {one.name}: {collapsed}",)))
        members, weights = list(frozen), [_say(budget) / len(frozen)] * len(frozen)
        of = f" of {1 + len(draw.further) - len(stages)} pretrainings" if draw.further else ""
        names = [f"{len(frozen)} frozen candidates{of}"]
        if several:
            matched = len(draw.unlabeled.indices) > 0
            tuning = Fixmatch(FixmatchConfig()) if matched else TwoStage(NoSettings())
            tuned = tuning.fit(copy.deepcopy(classifier), draw, budget)
            members += tuned.predictor.classifiers
            names.append("FixMatch" if matched else "two-stage, since every image is labeled")
            stages += tuned.stages
        if budget.doubts:
            scratch, stage = _from_scratch(classifier, draw, budget)
            members.append(scratch)
            names.append(f"scratch, since the pretraining ended with a warning ({budget.doubts[0]})")
            stages.append(stage)
        weights += [1.0] * (len(members) - len(frozen))
        rule = "" if several else f", by rule below {TRAINED_FROM} labels per class"
        return Fitted(Ensemble(members, weights), [Stage(f"mean of {' and '.join(names)}{rule}"), *stages])

    def steps(self, budget: Budget) -> int:
        """Those of FixMatch, if there are labels enough for it, of scratch, and of the distilled network."""
        if not budget.pretrained:
            return budget.steps
        costly = self.config.distill + (budget.per_class >= TRAINED_FROM)
        return round(COST * costly * budget.steps) + (budget.steps if budget.doubts else 0)


def _say(budget: Budget) -> float:
    """The weight of all frozen candidates together, where a trained one has 1."""
    if budget.doubts:
        return DOUBTED
    return FROZEN * min(1.0, TRAINED_FROM / budget.per_class)


def _frozen(classifier: Classifier, draw: Draw, several: bool) -> list[Classifier]:
    """Heads on propagated labels, and logistic ones where there are several labels, on the layers.

    The layers are the last and the last two, or the one that was named.
    """
    layers: list[str | None] = [classifier.layer]
    if classifier.layer is None and len(classifier.backbone.layers) > 1:
        layers.append(JOINED.join(classifier.backbone.layers[-2:]))
    if draw.kept is not None:
        draw.kept.take(layers)
    found = []
    for layer in layers:
        for spread in (False, True) if several else (True,):
            empty = build_head("linear", classifier.backbone.shape(layer), draw.classes)
            one = Classifier(classifier.backbone, empty, layer, classifier.labels)
            head = head_by_propagation(one, draw) if spread else convex(one, draw)
            fill_in(one, torch.as_tensor(head.weight), torch.as_tensor(head.bias))
            found.append(one)
    return found


def _frozen_beside(
    classifier: Classifier, one: Further, draw: Draw, several: bool
) -> tuple[list[Classifier], str | None]:
    """The same of a further pretraining; none, and a sentence, where its features have collapsed."""
    network = one.backbone.to(draw.hardware.device)
    beside = Classifier(network, classifier.head, classifier.layer, classifier.labels)
    its_draw = replace(draw, kept=one.kept)
    collapsed = _collapse(beside, its_draw)
    return ([] if collapsed else _frozen(beside, its_draw, several)), collapsed


def _from_scratch(classifier: Classifier, draw: Draw, budget: Budget) -> tuple[Classifier, Stage]:
    """The same network from random weights, trained for all steps."""
    like = classifier.backbone
    torch.manual_seed(mix(draw.seed, 8) >> 1)
    backbone = backbones.build(like.name, like.channels, like.image_size)
    head = build_head("linear", backbone.shape(classifier.layer), draw.classes)
    one = Classifier(backbone, head, classifier.layer, classifier.labels)
    done = FullFineTuning(NoSettings()).fit(one, draw, replace(budget, pretrained=False))
    return one, replace(done.stages[0], how=f"scratch: {done.stages[0].how}")


def _distilled(classifier: Classifier, teacher: Ensemble, draw: Draw, budget: Budget) -> tuple[Classifier, Stage]:
    """The pretrained network, trained to say of the unlabeled images what the mean says (Hinton et al., 2015)."""
    student = copy.deepcopy(classifier)
    head = head_by_propagation(student, draw)
    fill_in(student, torch.as_tensor(head.weight), torch.as_tensor(head.bias))
    teacher.mirrored = draw.labeled.mirrors
    targets = targets_of_both(draw, probabilities(teacher, draw.unlabeled, draw.hardware))
    task = GivenTargets(student, draw, targets, np.ones(len(targets)))
    lr = budget.lr * SMALL
    return student, train(student, draw, Phase("distilled", budget.steps, {"head": lr, "backbone": lr}, 2), task)


def _collapse(classifier: Classifier, draw: Draw) -> str | None:
    """A sentence where features of the training images are all alike, else None."""
    rows = draw.unlabeled if len(draw.unlabeled.indices) else draw.labeled
    places = np.linspace(0, len(rows.indices) - 1, min(JUDGED, len(rows.indices))).astype(np.int64)
    features = draw.features(classifier, rows.at(rows.indices[places]))
    rank, std = effective_rank(features), feature_std(features)
    if len(features) < FEWEST_JUDGED or (rank >= LEAST_RANK and std >= LEAST_STD):
        return None
    return f"the features have collapsed (effective rank {rank:.1f}, std {std:.3f}), and are not used"
