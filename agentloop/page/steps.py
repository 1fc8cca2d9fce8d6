"""The steps of a run: what the model said, and what came of it, with the calls folded."""

from __future__ import annotations

from collections.abc import Iterable

from agentloop.page.chart import Names
from agentloop.page.content import Content
from agentloop.page.html import Child, Html, tag
from agentloop.page.lanes import span, window
from agentloop.page.words import count, duration, on_one_line, short, tokens
from agentloop.story import Call, Step, Story

_ROLES = {"user": "prompt", "assistant": "model"}


class Steps:
    """Writes the steps of runs."""

    def __init__(self, names: Names, content: Content) -> None:
        self._names = names
        self._content = content

    def of(self, story: Story) -> list[Html]:
        """Everything that happened in ``story``, from the prompt on."""
        return [*self._before(story), *(self._step(story, step) for step in story.steps)]

    def _before(self, story: Story) -> Iterable[Html]:
        if story.instructions:
            yield tag(
                "details",
                tag("summary", "instructions"),
                tag("pre", self._content.text(story.instructions)),
                class_="said system",
            )
        for role, block in story.before:
            label = tag("span", _ROLES.get(role, role), class_="who")
            yield tag("div", label, self._content.blocks([block]), class_=f"said {role}")

    def _step(self, story: Story, step: Step) -> Html:
        began, ended = window(story, step)
        facts = [f"at {duration(max(began - story.began, 0))}", f"took {duration(ended - began)}"]
        if spent := tokens(step.ask.usage):
            sent, came = (step.ask.usage.get(f"{kind}_tokens", 0) for kind in ("input", "output"))
            about = "about " if step.ask.estimated else ""
            facts.append(f"{about}{count(spent, 'token')} ({short(sent)} in, {short(came)} out)")
        if step.ask.model:
            facts.append(step.ask.model)
        answers = [call for call in step.calls if call.began is None and not call.failed]
        return tag(
            "article",
            tag(
                "header",
                tag("a", f"Step {step.number}", href=f"#{self._names.step(story, step.number)}"),
                [tag("span", fact) for fact in facts],
            ),
            [self._said(step)] if step.said else None,
            self._asked(story, step, began, ended),
            [
                self._call(story, step, call, began, ended)
                for call in step.calls
                if call not in answers
            ],
            [self._answer(story, step, call) for call in answers],
            tag("div", self._content.blocks(step.told), class_="said told") if step.told else None,
            id=self._names.step(story, step.number),
            class_="step",
        )

    def _asked(self, story: Story, step: Step, began: float, ended: float) -> Html | None:
        ask = step.ask
        if ask.began is None:
            return None
        until = ask.ended
        took = duration(until - ask.began) if until is not None else "no answer"
        return tag(
            "div",
            tag("span", "model", class_="name"),
            tag("span", _stop(ask.stop_reason), class_="brief"),
            _track(ask.began, ended if until is None else until, began, ended, "ask"),
            tag("span", took, class_="took"),
            class_="row" + ("" if until is not None else " failed"),
        )

    def _said(self, step: Step) -> Html:
        return tag("div", self._content.blocks(step.said), class_="said assistant")

    def _call(self, story: Story, step: Step, call: Call, began: float, ended: float) -> Html:
        inner: list[Child] = [
            tag("h4", "arguments"),
            self._content.arguments(call.input),
            tag("h4", "result"),
            self._content.blocks(call.result)
            if call.result is not None
            else tag("p", "no result", class_="note"),
            [self._inside(inner) for inner in call.runs],
        ]
        if call.began is None:
            track, took = tag("span", class_="track"), "not run"
        else:
            until = ended if call.ended is None else call.ended
            hue = f"h{self._names.tools[call.name]}" + (" failed" if call.failed else "")
            track = _track(call.began, until, began, ended, hue)
            took = duration(until - call.began) if call.ended is not None else "unfinished"
        summary = tag(
            "summary",
            tag("span", call.name, class_="name"),
            tag("span", on_one_line(call.input, 160), class_="brief"),
            track,
            tag("span", took, class_="took"),
            class_="row" + (" failed" if call.failed else ""),
        )
        body = tag("div", inner, class_="inside")
        return tag("details", summary, body, class_="call", id=self._id(story, step, call))

    def _answer(self, story: Story, step: Step, call: Call) -> Html:
        """A call that carries the typed answer: no tool runs for it."""
        label = tag("span", "answer", class_="who")
        given = self._content.arguments(call.input)
        return tag("div", label, given, class_="said answer", id=self._id(story, step, call))

    def _inside(self, story: Story) -> Html:
        began, ended = span(story)
        facts = f"{count(len(story.steps), 'step')}, {duration(ended - began)}"
        how = tag("span", story.stop or "unfinished", class_=f"pill {mood(story)}")
        return tag(
            "section",
            tag("header", tag("strong", story.agent), how, tag("span", facts)),
            self.of(story),
            class_="run",
        )

    def _id(self, story: Story, step: Step, call: Call) -> str:
        return self._names.call(story, step.number, call)


def mood(story: Story) -> str:
    """``good``, ``bad``, ``early`` or ``open``: how the run ended."""
    if not story.stop:
        return "open"
    if story.stop == "done":
        return "good"
    return "bad" if story.stop in ("failed", "denied", "cancelled") else "early"


def _stop(reason: str) -> str:
    known = {"toolUse": "calls tools", "endTurn": "is done", "maxTokens": "was cut off"}
    return known.get(reason, reason)


def _track(began: float, ended: float, first: float, last: float, kind: str) -> Html:
    """A bar on the axis of its step."""
    length = max(last - first, 1e-6)
    left, width = (began - first) / length * 100, max(ended - began, 0) / length * 100
    style = f"left:{left:.3f}%;width:{width:.3f}%"
    return tag("span", tag("i", class_=kind, style=style), class_="track")
