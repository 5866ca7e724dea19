"""Letters of any script, and what is drawn where no font has them."""

import pytest

from ssl_app.report import lettering, plots
from ssl_app.report.sheet import Sheet

NOBODY_HAS = "\U000e1234"  # a code without a letter


def test_letters_of_the_usual_font_stay(messages):
    for name in ("Größe", "рентген", "ακτίνα", "بحث", "$a_b^2$"):
        assert lettering.drawn(name) == name
        assert lettering.families(name) == [lettering.USUAL]
    assert lettering.class_captions(["норма", "a"]) == ["норма", "a"]
    assert messages == []


def test_a_class_that_cannot_be_written_is_numbered_with_a_note(messages):
    assert lettering.class_captions(["a", NOBODY_HAS]) == ["a", "class 2"]
    assert messages == [
        f"note: no font of this machine has the letters of some class names; in the pictures class 2 is {NOBODY_HAS}"
    ]
    assert lettering.drawn(f"x{NOBODY_HAS}\n\ty\udcff") == "x□ y□"


def test_another_font_is_taken_for_letters_that_the_usual_one_lacks(monkeypatch):
    monkeypatch.setattr(lettering, "_family", lambda letter: "Noto" if letter == "正" else lettering.USUAL)
    assert lettering.families("正a正") == [lettering.USUAL, "Noto"]
    assert lettering.drawn("正") == "正"


@pytest.mark.filterwarnings("error")
def test_any_text_is_drawn_without_a_warning(tmp_path):
    sheet = Sheet(300, 60)
    sheet.text(5, 5, "$x_1 正常 \udcff\n" + NOBODY_HAS)
    assert sheet.save(tmp_path / "any.png").stat().st_size > 200


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["b\udce9t\udce9", "正常", "$x_1$", "a$b", NOBODY_HAS, "ε\\alpha"])
def test_a_confusion_matrix_is_drawn_of_classes_of_any_name(tmp_path, name, monkeypatch):
    monkeypatch.setattr(
        lettering.logger, "disabled", True
    )  # pytest's processes cannot hand on a name that is no UTF-8
    plots.confusion(tmp_path / "confusion.png", [[2, 1], [0, 3]], ["a", name])
    assert (tmp_path / "confusion.png").stat().st_size > 2000
