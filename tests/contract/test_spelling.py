"""A hook whose name is misspelled is never called, and nothing else says so; a field without help has a bare flag."""

import difflib

import pytest

from ssl_app.config import fields
from ssl_app.registry import find, names

PACKAGES = ("pretext", "transfer.strategies", "models.backbones")
MEMBERS = [(package, name) for package in PACKAGES for name in names(package)]


@pytest.mark.parametrize(("package", "name"), MEMBERS)
def test_no_attribute_is_nearly_one_of_the_contract(package: str, name: str) -> None:
    kind = find(package, name)
    base = {attribute for parent in kind.__mro__[1:] for attribute in vars(parent) if not attribute.startswith("_")}
    own = {attribute for attribute in vars(kind) if not attribute.startswith("_")} - base
    near = {attribute: difflib.get_close_matches(attribute, base, n=1, cutoff=0.88) for attribute in own}
    assert not {attribute: found for attribute, found in near.items() if found}, "did you mean these?"


@pytest.mark.parametrize(("package", "name"), [member for member in MEMBERS if member[0] != "models.backbones"])
def test_every_setting_has_help(package: str, name: str) -> None:
    assert not [field.name for field in fields(find(package, name).Config) if not field.help]
