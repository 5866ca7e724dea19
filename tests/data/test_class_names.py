"""Two spellings of one class, and labels that stand for none."""

import unicodedata

import pytest

from ssl_app.data.class_names import notices, plain, spellings, standing_for_none, without


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("café", unicodedata.normalize("NFD", "café")),
        ("Crack", "crack"),
        ("crack ", "crack"),
        ("crack\u200b", "crack"),
        ("no\u00a0finding", "no finding"),
        ("no_finding", "no-finding"),
        ("STRASSE", "straße"),
        ("ﬁne", "fine"),
    ],
)
def test_two_spellings_are_one_class(one: str, other: str) -> None:
    assert plain(one) == plain(other)
    assert spellings([one, other, other, None]) == [[other, one]]
    assert set(without([one, other, other], (), one_spelling=True)) == {other}
    assert without([one, other], (), one_spelling=False) == (one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("1", "-1"), ("a", "b"), ("crack", "cracks"), ("1", "01"), ("a1", "a 1"), ("e", "é")]
)
def test_other_names_stay_two_classes(one: str, other: str) -> None:
    assert not spellings([one, other])


def test_words_that_mean_no_label_are_counted() -> None:
    labels = [
        "unknown",
        "N/A",
        "?",
        "--",
        " ",
        "not available",
        "Unbekannt",
        "normal",
        "other",
        "negative",
        "0",
        None,
    ]
    assert set(standing_for_none(labels)) == {"unknown", "N/A", "?", "--", " ", "not available", "Unbekannt"}


def test_labels_that_stand_for_none_are_taken_away_as_requested() -> None:
    assert without(["unknown", "UNKNOWN", "a", None], ("Unknown",), one_spelling=False) == (None, None, "a", None)


def test_the_sentences_name_the_flags() -> None:
    labels = ["a", "A", "a", "?", unicodedata.normalize("NFD", "é"), "é"]
    assert [str(one) for one in notices(labels)] == [
        "2 classes have several spellings: 'a' and 'A', '\\xe9' and 'e\\u0301'; type one_spelling",
        "1 label is taken for a class, and may mean none: '?' of 1 images; type unlabeled '?'",
    ]
    assert notices(["a", "b", None]) == []
