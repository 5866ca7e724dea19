"""The field's words: identifiers and phrases that stood here once and say nothing to a reader of papers."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLACES = ("ssl_app", "tests", "benchmarks", "docs", "recipes", "docker")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
KINDS = {".py", ".md", ".toml", ".html", ".yaml"}

# what stood here -> what the field says
WORDS = {
    r"colour|grey|neighbour|labell|initialis|\bcentre|normalis|optimis|behaviour": "American spelling",
    r"\bunlearning\b": "inference, map_images",
    r"\bover_all\b": "map_dataset",
    r"\bremembers\b": "per_image_targets",
    r"\brenewed\b": "reinitialized",
    r"\bhand-?over\b|\bhanded over\b": "checkpoint",
    r"\balarms?\b|\brang\b|warning rings": "warning",
    r"\bjudges?\b|\bmakers?\b": "discriminator, generator; evaluated",
    r"\bbench(es)?\b": "trial setup",
    r"\bputs? up with\b": "allows",
    r"\belder\b": "predecessor",
    r"\bupright\b": "orientation",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bby the mining\b|\bwith all-pairs\b": "with semi-hard mining, in-batch",
    r"\bthose that (vote|are asked)\b": "kNN bank, queries",
    r"\basked at once\b": "map_dataset",
    r"\bclosed (form|fits?)\b|\bclosed-form\b": "convex fit",
    r"\bnot? held-out labels\b|--judge\b": "--evaluate-on",
    r"(?<!allow-)\bleaks?\b": "overlap",  # the flag has the word that users look for
    r"\bssl_app\.(opening|preparing|choosing|material|pacing|planning|saying|watching|tasks|trial|pool)\b": "a noun",
}


def texts() -> list[Path]:
    found = [path for place in PLACES for path in (ROOT / place).rglob("*") if path.suffix in KINDS]
    return sorted([*found, *(ROOT / page for page in PAGES)])


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_the_field_does_not_know_is_not_used(word: str) -> None:
    pattern = re.compile(word)
    hits = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in texts()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not hits, f"take {WORDS[word]!r}:\n" + "\n".join(hits)


def test_told_and_said_are_no_names_in_the_package() -> None:
    named = re.compile(r"\b(told|asked|said)\b\s*(=|:|\.|\()")
    for path in (ROOT / "ssl_app").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not named.search(line.partition("#")[0].partition('"""')[0]), f"{path}: {line.strip()}"
