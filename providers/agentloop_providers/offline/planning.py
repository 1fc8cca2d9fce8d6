"""Which tools to call next, if any: by the question at first, then by what results name."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from mcp_types import Tool

from agentloop_providers.offline.conversation import Conversation, fingerprint
from agentloop_providers.offline.evidence import Evidence
from agentloop_providers.offline.facts import Facts
from agentloop_providers.offline.filling import (
    fill,
    is_search,
    more_queries,
    role_of,
    takes_name,
)
from agentloop_providers.offline.following import follow
from agentloop_providers.offline.question import Question
from agentloop_providers.offline.ranking import Ranking
from agentloop_providers.offline.schemas import slots_of
from agentloop_providers.offline.typed import Builder
from agentloop_providers.offline.words import KIN, STOP, WEAK, is_weak, split, stem, stems

MAX_STEPS = 6
"""Replies to one question, the answer among them."""

MAX_CALLS = 8
"""Calls in one reply."""

FEW = 2
"""The words of a brief question."""

_ACTING = """
delete remove drop erase send email post publish create write update set insert put patch buy pay
order purchase cancel book reserve run execute kill stop start restart reboot shutdown deploy move
rename copy upload submit approve reject transfer merge commit push close open install uninstall
enable disable reset clear archive assign invite ban block add edit modify save make register
unlock lock revoke grant notify reply subscribe
"""
_READING = """
get list read show fetch find search lookup describe status info count query check view current
available all now today
"""
_KINDS = ("search", "helper", "lookup", "listing", "other")
_ACTS = frozenset(_ACTING.split())
_READS = frozenset(map(stem, _READING.split()))


@dataclass(frozen=True)
class Planned:
    """A call to make."""

    tool: str
    arguments: dict[str, Any]


def plan(talk: Conversation, evidence: Evidence, ranking: Ranking) -> list[Planned]:
    """The calls to make now; none where it is time to answer."""
    if not talk.tools or talk.steps >= MAX_STEPS - 1 or talk.choice == "none":
        return []
    if not any(call.step >= 0 for call in talk.calls):
        wanted = _first(talk)
    else:
        wanted = _further(talk, evidence, ranking)
    fresh: dict[str, Planned] = {}
    for call in wanted:
        mark = fingerprint(call.tool, call.arguments)
        if mark not in talk.made:
            fresh.setdefault(mark, call)
    return list(fresh.values())[:MAX_CALLS]


def relevance(talk: Conversation) -> dict[str, float]:
    """For each tool, how much its name, description and parameters share with the question."""
    texts = {tool.name: _texts(tool) for tool in talk.tools}
    counts: dict[str, int] = {}
    for words in texts.values():
        for word in words:
            counts[word] = counts.get(word, 0) + 1
    total = len(talk.tools)
    asked = talk.meant
    scores: dict[str, float] = {}
    for tool in talk.tools:
        score = 0.0
        for word, weight in texts[tool.name].items():
            rarity = 0.5 + 0.5 * math.log(1 + total / counts[word]) / math.log(1 + total)
            if word in asked:
                score += weight * rarity
            elif KIN.get(word, frozenset()) & asked and word not in _READS:
                score += 0.5 * weight * rarity
        named = re.search(rf"\b{re.escape(tool.name)}\b", f"{talk.system} {talk.question.text}")
        scores[tool.name] = score + (2.0 if named else 0.0)
    return scores


def acts(tool: Tool) -> bool:
    """Whether calling a tool may change something, as far as its name and annotations tell."""
    notes = tool.annotations
    if notes and notes.read_only_hint:
        return False
    if notes and (notes.destructive_hint or notes.read_only_hint is False):
        return True
    words = split(tool.name)  # as they are: a "writer" is somebody to ask, "write" changes things
    reads = _READS & set(stems(tool.name))
    return any(word in _ACTS for word in (words[:1] if reads else words))


def _texts(tool: Tool) -> dict[str, float]:
    """The stems by which a tool may be meant, with how much each tells."""
    words: dict[str, float] = {}
    said = [(2.0, tool.name), (1.5, tool.title or ""), (1.0, (tool.description or "")[:400])]
    said += [(0.5, f"{slot.name} {slot.description}") for slot in slots_of(tool)]
    for weight, text in said:
        for word in split(text):
            if word not in STOP:
                tells = weight * (0.3 if word in WEAK else 1.0)
                words[stem(word)] = max(words.get(stem(word), 0.0), tells)
    return words


def _first(talk: Conversation) -> list[Planned]:
    """The calls that the question itself asks for."""
    scores = relevance(talk)
    offers = [
        Offer(_kind_of(tool), scores[tool.name] + _given(tool, talk.question), calls)
        for tool in talk.tools
        if (not acts(tool) or _is_ordered(tool, talk))
        and (not talk.question.only_tells or _is_spoken_of(tool, talk.question))
        and (calls := [Planned(tool.name, given) for given in fill(tool, talk.question)])
    ]
    chosen = _chosen(offers, asked=bool(talk.question.focus))
    if any(offer.kind == "search" for offer in chosen) and _is_brief(talk.question):
        chosen += [offer for offer in offers if offer.kind == "listing" and offer not in chosen][:1]
    chosen.sort(key=lambda offer: -offer.score)
    return [call for offer in chosen for call in offer.calls]


def _is_brief(question: Question) -> bool:
    """Whether a search will find its few words in too many lines: a name is the better trace."""
    return len(question.words) <= FEW and not question.asks_value


@dataclass(frozen=True)
class Offer:
    """The calls of a tool that a question could mean, and how surely it does."""

    kind: str
    """What sort of tool it is: ``search``, ``helper``, ``lookup``, ``listing`` or ``other``."""
    score: float
    calls: list[Planned]


def _kind_of(tool: Tool) -> str:
    needed = [slot for slot in slots_of(tool) if slot.required]
    if is_search(tool):
        return "search"
    if needed:
        return "helper" if all(role_of(slot) == "prompt" for slot in needed) else "lookup"
    return "listing" if _READS & set(stems(tool.name)) else "other"


def _chosen(offers: list[Offer], *, asked: bool) -> list[Offer]:
    """The offers to take up: what is surely meant, with searches; else what may be meant."""
    kinds = {kind: [offer for offer in offers if offer.kind == kind] for kind in _KINDS}
    lookups, plain = kinds["lookup"], [*kinds["listing"], *kinds["other"]]
    direct = [offer for offer in lookups if offer.score >= (0.5 if asked else 1.0)]
    direct += [offer for offer in plain if offer.score >= 1.0]
    best = max((offer.score for offer in direct), default=0.0)
    direct = [offer for offer in direct if offer.score >= 0.5 * best]
    sure = best >= 1.5 and any(call.arguments for offer in direct for call in offer.calls)
    chosen = direct + [offer for offer in kinds["search"] if not sure or offer.score >= best]
    strong = [offer for offer in kinds["helper"] if offer.score >= 1.0]
    chosen += strong or (kinds["helper"] if not chosen else [])
    weak = sorted((offer for offer in lookups if offer.score > 0), key=lambda offer: -offer.score)
    return chosen or weak[:1] or kinds["listing"][:3]


def _given(tool: Tool, question: Question) -> float:
    """What it counts that the question holds just what a tool takes: a path, an address, a name."""
    given = {
        "path": question.paths,
        "url": question.urls,
        "email": question.emails,
        "sum": question.sums,
        "id": question.ids,
    }
    needed = [slot for slot in slots_of(tool) if slot.required]
    if any(given.get(role_of(slot) or "") for slot in needed):
        return 1.0
    named = question.names or question.quoted
    return 0.5 if named and any(takes_name(slot) for slot in needed) else 0.0


def _is_ordered(tool: Tool, talk: Conversation) -> bool:
    """Whether the question itself orders what a tool does: its verb must be said."""
    words = split(tool.name)
    verbs = [stem(word) for word in words if word in _ACTS] or stems(tool.name)[:1]
    asked = talk.question.verbs
    return any(verb in asked or KIN.get(verb, frozenset()) & asked for verb in verbs)


def _is_spoken_of(tool: Tool, question: Question) -> bool:
    """Whether a question holds a word of a tool's; one that says little does not count."""
    words = [word for word in _texts(tool) if not is_weak(word)]
    return any(
        word in question.verbs or KIN.get(word, frozenset()) & question.verbs for word in words
    )


def _further(talk: Conversation, evidence: Evidence, ranking: Ranking) -> list[Planned]:
    """The calls that the results so far suggest; where they say nothing, more searches."""
    readers = [tool for tool in talk.tools if not acts(tool)]
    found = [
        Planned(name, arguments)
        for name, arguments in follow(readers, relevance(talk), talk, evidence, ranking)
    ]
    if found or ranking.scored:
        return found
    searched = {call.name for call in talk.calls}
    return [
        Planned(tool.name, {**arguments, slot: query})
        for tool in readers
        if is_search(tool) and tool.name in searched
        for arguments in fill(tool, talk.question)[:1]
        for slot in list(arguments)[:1]
        for query in more_queries(talk.question)
    ]


def forced(talk: Conversation, evidence: Evidence, ranking: Ranking) -> Planned:
    """A call for when one is required: of a tool that changes nothing, if there is one."""
    scores = relevance(talk)
    order = sorted(talk.tools, key=lambda tool: (acts(tool), -scores[tool.name]))
    facts = Facts(talk, evidence, ranking)
    tried: list[Planned] = []
    for tool in order:
        tried += [Planned(tool.name, arguments) for arguments in fill(tool, talk.question)]
        tried.append(Planned(tool.name, Builder(tool.input_schema, facts).arguments()))
    fresh = (call for call in tried if fingerprint(call.tool, call.arguments) not in talk.made)
    return next(fresh, tried[0])
