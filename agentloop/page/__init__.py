"""A transcript as one HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources

from agentloop.page.chart import Names, chart
from agentloop.page.content import Content
from agentloop.page.html import Html, inside, tag
from agentloop.page.lanes import span
from agentloop.page.steps import Steps, mood
from agentloop.page.words import as_json, count, duration, moment, short, tokens
from agentloop.story import Story


def render(stories: Sequence[Story]) -> str:
    """The page that shows ``stories``.

    Whatever models and tools said is text on it and nothing else; and should any of it come to be
    more after all, the page's own policy lets no script run but its own, and nothing be loaded.
    """
    names, content = Names(stories), Content(stories)
    steps = Steps(names, content)
    title = ", ".join(dict.fromkeys(story.agent for story in stories)) or "no runs"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy()),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title[:80]} · agentloop"),
        tag("style", _shipped("page.css")),
    )
    body = tag(
        "body",
        _toolbar(),
        tag("main", [_run(story, names, content, steps) for story in stories]),
        tag("div", id="tip", role="tooltip", hidden=True),
        tag("script", _shipped("page.js")),
    )
    return inside([Html("<!doctype html>"), tag("html", head, body, lang="en")])


def _run(story: Story, names: Names, content: Content, steps: Steps) -> Html:
    return tag(
        "section",
        _title(story),
        _facts(story),
        _outcome(story, content),
        chart(story, names),
        tag("section", tag("h2", "Steps"), steps.of(story), class_="steps"),
        class_="story",
    )


def _title(story: Story) -> Html:
    return tag(
        "header",
        tag("h1", story.agent),
        tag("span", story.stop or "unfinished", class_=f"pill {mood(story)}"),
        tag("p", f"{moment(story.began)} · run {story.id}"),
        class_="title",
    )


def _facts(story: Story) -> Html:
    began, ended = span(story)
    usage = story.usage
    spent = short(tokens(usage)) if usage else "?"
    parts = [f"{short(usage.get(f'{kind}_tokens', 0))} {kind}" for kind in ("input", "output")]
    if cached := usage.get("cache_read_tokens"):
        parts.append(f"{short(cached)} cached")
    if story.estimated:
        parts.append("estimated")
    failed = sum(call.failed for call in story.calls)
    inner = sum(1 for _ in story.inside()) - 1
    models = list(dict.fromkeys(s.ask.model for each in story.inside() for s in each.steps))
    rows: list[tuple[str, str, str]] = [
        ("time", duration(ended - began), f"in {count(story.parts, 'part')}" * (story.parts > 1)),
        ("steps", f"{len(story.steps):,}", ", ".join(filter(None, models[:3]))),
        ("tool calls", f"{len(story.calls):,}", f"{failed:,} failed" if failed else ""),
        ("tokens", spent, ", ".join(parts) if usage else ""),
    ]
    if inner:
        rows.append(("runs inside", f"{inner:,}", ""))
    return tag(
        "dl",
        [
            tag("div", tag("dt", name), tag("dd", value), tag("dd", more, class_="more"))
            for name, value, more in rows
        ],
        class_="facts",
    )


def _outcome(story: Story, content: Content) -> list[Html]:
    """What went wrong, if anything did; and what was asked and answered."""
    parts: list[Html] = []
    if story.error:
        parts.append(tag("div", tag("pre", content.text(story.error)), class_="outcome error"))
    asked = [block for role, block in story.before if role == "user"][-1:]
    answer = story.text if story.answer is None else as_json(story.answer)
    if asked or answer:
        kind = None if story.answer is None else "code"
        answered = [tag("h2", "Answer"), tag("pre", content.text(answer), class_=kind)]
        prompt = [tag("h2", "Prompt"), tag("div", content.blocks(asked), class_="asked")]
        both = [prompt if asked else None, answered if answer else None]
        parts.append(tag("div", both, class_="outcome"))
    return parts


def _toolbar() -> Html:
    return tag(
        "nav",
        tag("input", id="search", type="search", placeholder="Search", aria_label="search"),
        tag("output", id="found"),
        tag("button", "Unfold all", id="unfold"),
        tag("button", "Dark", id="theme"),
    )


@cache
def _shipped(name: str) -> Html:
    return Html(resources.files(__name__).joinpath(name).read_text(encoding="utf-8"))


@cache
def _policy() -> str:
    digest = base64.b64encode(hashlib.sha256(_shipped("page.js").encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
