"""A report as one HTML file: what it is about, a list of contents, sections."""

from collections.abc import Sequence

from ssl_app.report import page
from ssl_app.report.blocks import Section, when
from ssl_app.report.markup import Child, join, tag, text
from ssl_app.report.run_facts import RunFacts

TEMPLATE = "report.html"
END = "Made by ssl-app from the files of the run; this page asks no network. Intervals are of 95 %."


def document(
    facts: RunFacts, title: str, first: Sequence[Child], sections: Sequence[Section | None], end: str = END
) -> str:
    """The file. `first` stands above the list of contents: the answer. Sections of None are left out."""
    shown = [one for one in sections if one is not None]
    links = [tag("li", tag("a", one.title, href=f"#{one.key}")) for one in shown]
    kicker = f"{facts.verb} {facts.name} · {when(facts.started)}" if facts.started else f"{facts.verb} {facts.name}"
    body = [tag("section", tag("h2", one.title), one.body, id=one.key) for one in shown]
    parts = {
        "title": text(f"{title}: {facts.name}"),
        "top": join(
            [
                tag("p", kicker, class_="kicker"),
                tag("h1", title),
                *first,
                tag("nav", tag("ul", *links, class_="contents"), aria_label="Contents"),
            ]
        ),
        "body": join(body, "\n"),
        "end": text(end),
    }
    return page.assembled(TEMPLATE, parts)
