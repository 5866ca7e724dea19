"""All measures of one layer: of features that separate the classes, of noise, and of very few images."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_app.evaluation import linear_probe
from ssl_app.evaluation.layer import Protocol, Truth, best_layer, measure, plain_numbers
from ssl_app.report import layers as tables

HOW = Protocol((1, 5), (3, 9), 0, torch.device("cpu"))


def truth_of(train, test) -> Truth:
    held = linear_probe.hold_out(train, None, 0)
    return Truth(np.asarray(train), np.asarray(test), ("a", "b", "c"), held, [str(i) for i in range(len(test))], None)


def labeled(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(count) % 3)


def features(labels: np.ndarray, apart: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(len(labels), 6))
    return (apart * np.eye(6)[labels] + noise).astype(np.float32)


def test_features_that_separate_the_classes_are_right_by_every_measure() -> None:
    truth = truth_of(labeled(90, 0), labeled(45, 1))
    found = measure(features(truth.train, 20, 2), features(truth.test, 20, 3), truth, HOW)
    for kind in ("knn", "linear"):
        assert (found[kind]["balanced_accuracy"], found[kind]["held_out"], found[kind]["n"]) == (1, 1, 45)
    assert (found["retrieval"]["map"], found["retrieval"]["precision_10"]) == pytest.approx((1, 1))
    three, nine = found["clusters"]
    assert (three["nmi"], three["ami"], three["ari"]) == pytest.approx((1, 1, 1))
    assert nine["ami"] < 1, "more clusters than classes"
    assert [(row["precision"], row["recall"], row["n"]) for row in found["per_class"]] == [(1, 1, 15)] * 3


def test_noise_is_at_chance_by_every_measure() -> None:
    truth = truth_of(labeled(300, 0), labeled(150, 1))
    found = measure(features(truth.train, 0, 2), features(truth.test, 0, 3), truth, HOW)
    assert found["linear"]["low"] < 1 / 3 < found["linear"]["high"]
    retrieval = found["retrieval"]
    assert retrieval["map"] == pytest.approx(retrieval["map_by_chance"], abs=0.02)
    for row in found["clusters"]:
        assert row["nmi"] == pytest.approx(row["nmi_by_chance"], abs=0.04)
        assert row["ami_low"] < 0 < row["ami_high"]


def test_choices_look_at_no_test_label() -> None:
    truth = truth_of(labeled(60, 0), labeled(30, 1))
    arrays = (features(truth.train, 1, 2), features(truth.test, 1, 3))
    one, other = (measure(*arrays, replace(truth, test=labels), HOW) for labels in (truth.test, 2 - truth.test))
    for kind, key in (("knn", "k"), ("knn", "held_out"), ("linear", "how"), ("linear", "held_out")):
        assert one[kind][key] == other[kind][key]
    assert [row["train"] for row in one["clusters"]] == [row["train"] for row in other["clusters"]]
    assert one["linear"]["accuracy"] != other["linear"]["accuracy"]


def test_the_best_layer_is_the_one_of_the_held_out_images() -> None:
    found = {"a": {"knn": {"held_out": 0.5}}, "b": {"knn": {"held_out": 0.7}}}
    assert best_layer(found, "knn") == "b"
    assert best_layer({"a": {"knn": {"held_out": None}}}, "knn") is None


def test_test_images_of_three_classes_find_nothing_and_the_tables_show_it() -> None:
    truth = truth_of(labeled(12, 0), [0, 1, 2])
    found = {"pooled": measure(features(truth.train, 9, 2), features(truth.test, 9, 3), truth, replace(HOW, k=(1,)))}
    assert (found["pooled"]["retrieval"]["n"], found["pooled"]["retrieval"]["left_out"]) == (0, 3)
    assert tables.retrieved(found, found)[1].split() == ["pooled", "-", "-", "-", "-"]
    assert not any(name.startswith("retrieval") for name in plain_numbers(found["pooled"]))
    for table in (tables.scores, tables.clustered):
        assert len(table(found, found)) >= 3
    json.dumps(found, allow_nan=False)
