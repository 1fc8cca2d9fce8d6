"""The table of faults: what is done to the runtime, and what must come of it.

Each row is played on each of its carriers by the tests that are marked with its id; at the end of
``pytest tests/faults`` the table says what came of every cell. What must hold in every cell is
not repeated: every history that is sent is balanced and can be written, the process lives, no
task, thread or lock is left, errors are of one tree with a stable ``code``, and no secret is in a
request, an error, a log line or a span. Where a row names what a run ends with, it is the stop or
the ``code`` of the error: a reply that no repair made good is ``malformed_reply``, whatever was
wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass

PROVIDER, PUSH, ROUNDS, STORED = CARRIERS = ("provider", "push", "rounds", "stored")
"""``provider`` is a run without a client; ``stored`` is ``rounds`` with a store."""

CLIENTS = (PUSH, ROUNDS, STORED)
IN_ROUNDS = (ROUNDS, STORED)


WITHOUT_A_STORE = (
    "Nothing is remembered without a store, so there a client may send a round again, and tools "
    "that must not run twice are refused unless their author accepts that in words."
)


@dataclass(frozen=True)
class Fault:
    """One row."""

    id: str
    where: str
    """Where it is injected: reply, tool, client, wire, state or host."""
    what: str
    outcome: str
    carriers: tuple[str, ...] = CARRIERS
    decided: str = ""
    """Where the outcome is another one than is usually asked for, and why."""


TABLE: dict[str, Fault] = {
    row.id: row
    for row in (
        # --- replies ---------------------------------------------------------------------------
        Fault(
            "B01",
            "reply",
            "unknown tool name beside a good one",
            "an error result names up to 5 close names; the good one runs; the next turn follows",
        ),
        Fault(
            "B02",
            "reply",
            "two tool uses with one id, and ten thousand",
            "later ids are rewritten before they are stored; each use is answered once",
        ),
        Fault(
            "B03",
            "reply",
            "wrong, missing, extra arguments",
            "not run; an error result with path and reason, the value cut to 200 characters",
        ),
        Fault(
            "B04",
            "reply",
            "arguments that are null, a list or a number",
            "not run; a provider's: an error result; a client's: refused with a typed error",
            decided="The SDK refuses the whole reply. Over push it is asked for once more; over "
            "rounds the client gets -32602, nothing runs, and it may bring a better answer.",
        ),
        Fault(
            "B05",
            "reply",
            "arguments whose text is no JSON",
            "not run; an error result that says so",
            (PROVIDER,),
        ),
        Fault(
            "B06",
            "reply",
            "stop reason toolUse without a tool use",
            "with text it is the answer; without, one repair, then malformed_reply",
        ),
        Fault(
            "B07",
            "reply",
            "a tool use with endTurn, or with a stop reason nobody knows",
            "the tool runs",
        ),
        Fault("B08", "reply", "no content", "one repair, then malformed_reply"),
        Fault("B09", "reply", "role user in a reply", "malformed_reply; the text is not used"),
        Fault(
            "B10",
            "reply",
            "a content block of an unknown type",
            "a provider's is left out, the others are used; a client's reply is refused",
            decided="The SDK refuses the whole reply of a client, as for B04.",
        ),
        Fault(
            "B11",
            "reply",
            "cut off by maxTokens inside a tool call",
            "the last call is not run and the model told why; cut text ends with truncated",
        ),
        Fault("B12", "reply", "the model refuses", "the stop is refused; no answer, no retry"),
        Fault(
            "B13",
            "reply",
            "tool calls for ever, with a limit of n steps",
            "n asks, the last with toolChoice none; the stop says steps; the history is kept",
        ),
        Fault("B14", "reply", "the same with default limits", "ends in under 25 asks"),
        Fault(
            "B15",
            "reply",
            "10,000 tool uses in one reply",
            "64 run, at most 16 at once, the rest is answered as refused; under 5 s and 200 MB",
        ),
        Fault(
            "B16",
            "wire",
            "arguments nested 20,000 deep",
            "a typed error within the time of an ask; later calls on the connection work",
            decided="Over rounds the line that holds it is a request: it cannot be read, so there "
            "is nobody to answer, and the state that was sent stays good.",
        ),
        Fault(
            "B17",
            "reply",
            "a 20 MB argument; 10 MB of final text",
            "an error result; the text is cut, and the stop says truncated",
        ),
        Fault(
            "B18",
            "tool",
            "output that imitates the protocol, chat turns, ANSI and bidi controls",
            "stays in its block; no log line holds it; nothing runs because of it",
        ),
        Fault("B19", "reply", "text and a tool use together", "the tool runs, the text is kept"),
        Fault(
            "B20",
            "reply",
            "an id of an earlier turn; _meta and signatures of thinking",
            "a new call; what is opaque comes back as it was",
        ),
        Fault(
            "B21",
            "reply",
            "a typed answer that does not fit, for ever",
            "one result per id, 2 repairs, then invalid_output",
        ),
        Fault(
            "B22",
            "reply",
            "a tool call although toolChoice is none",
            "not run, answered once, and the run ends with the limit that had struck",
        ),
        # --- tools -----------------------------------------------------------------------------
        Fault(
            "B23",
            "client",
            "an approval is denied, raises, or never comes",
            "an error result; the tool never runs; waiting has a deadline",
        ),
        Fault(
            "B24",
            "tool",
            "one of several raises",
            "an error result for it; the results of the others are kept, in order",
        ),
        Fault(
            "B25",
            "tool",
            "a credential in an exception, its cause, arguments, or a URL",
            "in no request, error, log line or span",
        ),
        Fault(
            "B26",
            "tool",
            "SystemExit, KeyboardInterrupt, GeneratorExit",
            "an error result; a real SIGINT still ends the process",
        ),
        Fault("B27", "tool", "raises CancelledError", "an error result; the run goes on"),
        Fault(
            "B28",
            "tool",
            "an async tool hangs",
            "an error result after its timeout; siblings are kept; its task is gone",
        ),
        Fault(
            "B29",
            "tool",
            "swallows its cancellation",
            "left behind after its grace, counted and logged; the run goes on",
        ),
        Fault("B30", "tool", "a sync tool blocks", "in a thread; the loop lags less than 100 ms"),
        Fault(
            "B31",
            "tool",
            "a sync tool never returns, again and again",
            "an error result each; past 8 stuck threads calls are refused; no lag",
        ),
        Fault(
            "B32",
            "tool",
            "50 MB of output; 10,000 blocks; a 20 MB image",
            "cut, with a notice, within the bounds in every request",
        ),
        Fault(
            "B33",
            "tool",
            "gives a cycle, NaN, bytes, an object, a generator",
            "safe text, or an error result",
        ),
        Fault(
            "B34",
            "tool",
            "a lone surrogate, NUL, invalid UTF-8",
            "replaced; the server lives and serves the next call",
        ),
        Fault("B35", "tool", "gives None, an empty string, an empty list", "one valid result"),
        Fault(
            "B36",
            "client",
            "the caller cancels while 3 tools run",
            "all stop within 1 s, with their cleanup; cancellation goes on upwards",
        ),
        Fault(
            "B37",
            "host",
            "cancelled or killed between reply and results",
            "open calls are answered as not run; the next model takes the history",
            (PROVIDER, STORED),
            decided="Over push and rounds without a store nothing outlives the call, so there is "
            "nobody to go on.",
        ),
        Fault(
            "B38",
            "reply",
            "a budget of 5 calls and 10 at once; a budget of tokens",
            "exactly 5 run, 5 are refused; tokens end the run",
            decided="No budget of money: a client's model has no price that the server knows.",
        ),
        Fault(
            "B39",
            "reply",
            "an argument made for a pattern that backtracks; 1,000 alternatives; recursion",
            "refused or checked at once: the loop lags less than 100 ms",
        ),
        Fault(
            "B40",
            "tool",
            "a schema with a $ref to the network or a file",
            "nothing is fetched",
            (PROVIDER,),
            decided="A schema of another server is passed on as it is; nobody here resolves it.",
        ),
        Fault(
            "B41",
            "tool",
            "prints; a child process writes to stdout (stdio)",
            "the wire is intact",
            CLIENTS,
        ),
        Fault(
            "B42",
            "tool",
            "a registered secret in a tool's result, error or arguments",
            "in no log line, span or error, also with content; nor before the model where asked",
        ),
        Fault(
            "B43",
            "tool",
            "starts its own agent again and again",
            "an error result at depth 5; what the inner runs use counts for the outer one",
            decided="Four agents may run inside one another: planner, writer, researcher, reader.",
        ),
        Fault(
            "B44",
            "tool",
            "audio, links and embedded files for a model that reads text",
            "mapped, or named as text",
            (PROVIDER,),
        ),
        Fault(
            "B45",
            "tool",
            "names that are double, empty, long, not ASCII or dotted; no schema",
            "refused when defined, or mapped both ways",
            (PROVIDER,),
        ),
        # --- models over HTTP ------------------------------------------------------------------
        Fault(
            "B46",
            "wire",
            "429 with retry-after in seconds, as a date, huge, junk",
            "honoured up to 60 s, with jitter; the run's deadline wins",
            (PROVIDER,),
        ),
        Fault(
            "B47",
            "wire",
            "529, 503, connection refused, no such host",
            "tried again, a bounded number of times",
            (PROVIDER,),
        ),
        Fault(
            "B48",
            "wire",
            "500 for ever",
            "a ProviderError with status and request id, in bounded time",
            (PROVIDER,),
        ),
        Fault(
            "B49",
            "wire",
            "the endpoint hangs; the client never answers",
            "timeout; over push notifications/cancelled is sent",
            decided="Over rounds nobody waits: a client that never answers costs nothing.",
        ),
        Fault(
            "B50",
            "wire",
            "a reset in the body; a stream that ends inside a tool call, or repeats itself",
            "nothing partial runs; the ask is tried again",
            (PROVIDER,),
        ),
        Fault(
            "B51",
            "wire",
            "200 with HTML, [], null, another schema",
            "malformed_reply",
            (PROVIDER,),
        ),
        Fault(
            "B52",
            "wire",
            "the context overflows",
            "context_overflow; the same prompt is not sent again",
            (PROVIDER,),
        ),
        Fault(
            "B53",
            "client",
            "the user rejects the k-th ask",
            "the stop is denied, no retry; what was done is in the transcript",
            CLIENTS,
            decided="Over rounds the client ends the call itself and the server is never told.",
        ),
        Fault(
            "B54",
            "client",
            "goes away in the middle of an ask or a tool",
            "stopped within 1 s; over 2025-11-25 a broken stream alone stops nothing",
            CLIENTS,
        ),
        Fault(
            "B55",
            "client",
            "answers late, or twice",
            "ignored; the run is what the first answer, or the timeout, made of it",
            CLIENTS,
            decided="Not logged: over push the SDK drops an answer that nobody waits for, and in "
            "rounds it is what any client may do that sends its request again.",
        ),
        Fault(
            "B56",
            "wire",
            "an invalid key, 402, 403",
            "authentication; no retry; the key is not shown",
            (PROVIDER,),
        ),
        # --- state -----------------------------------------------------------------------------
        Fault(
            "B57",
            "state",
            "tampered, cut, junk, of another key",
            "-32602 with one text; nothing runs",
            IN_ROUNDS,
        ),
        Fault(
            "B58",
            "state",
            "of another principal, tool, arguments or service",
            "-32602; nothing runs",
            IN_ROUNDS,
        ),
        Fault(
            "B59",
            "client",
            "a forged reply calls a tool that the caller may not use",
            "an error result; the events tell of it",
            CLIENTS,
        ),
        Fault(
            "B60",
            "state",
            "the same round 3 times, 5 at once, abandoned, on 2 replicas",
            "each effect once; the recorded outcome comes back",
            IN_ROUNDS,
            decided=WITHOUT_A_STORE,
        ),
        Fault(
            "B61",
            "client",
            "a capability is missing, or withdrawn between rounds",
            "-32021 with requiredCapabilities; nothing runs",
            CLIENTS,
        ),
        Fault(
            "B62",
            "state",
            "an old state 30 times with new answers",
            "the recorded outcome each time: nothing runs again",
            IN_ROUNDS,
            decided=WITHOUT_A_STORE,
        ),
        Fault(
            "B63",
            "client",
            "answers that are missing, unknown, of the wrong kind",
            "asked again, ignored, a typed error",
            IN_ROUNDS,
        ),
        Fault(
            "B64",
            "state",
            "grows: 2,000 calls, a 50 MB result, 100 turns",
            "small on the wire, or refused in words; with a store a handle of any state",
            IN_ROUNDS,
            decided="Without a store a state of up to 2 MiB crosses the wire: with an image or "
            "two in it, 256 KiB would end runs that clients bring back without trouble.",
        ),
        Fault(
            "B65",
            "host",
            "prompt, tools or code changed between rounds",
            "-32602 that says so; nothing runs",
            IN_ROUNDS,
            decided="No way around it: only limits may change, since a history that other tools "
            "made is a history that nobody has tested.",
        ),
        Fault(
            "B66",
            "client",
            "never got the first round, and calls anew",
            "with its idempotency key it is the same call: once tools run once",
            IN_ROUNDS,
            decided=WITHOUT_A_STORE,
        ),
        Fault(
            "B67",
            "host",
            "10 client rounds; key rotation; expiry; clocks 5 minutes apart",
            "an answer in time; nothing lost in rotation; typed errors",
            IN_ROUNDS,
        ),
        # --- hosts and stores ------------------------------------------------------------------
        Fault(
            "B68",
            "host",
            "kill -9 at every step and inside tools, on SQLite and PostgreSQL",
            "every call finishes; no once tool runs twice; unknown outcomes are told",
            (STORED,),
            decided="Two stores and not three: the one in memory dies with its process.",
        ),
        Fault(
            "B69",
            "host",
            "two replicas, one of them paused",
            "one owner; the stale one's writes are refused, and it gives the other's outcome",
            (STORED,),
        ),
        Fault(
            "B70",
            "host",
            "the store is down, slow, full, damaged",
            "no effect without a claim; a typed error; nothing is lost on return",
            (STORED,),
        ),
        Fault(
            "B71",
            "host",
            "the wall clock jumps by a day",
            "no early or late end of runs and leases",
        ),
        Fault(
            "B72",
            "client",
            "progress of 1,000 tool calls",
            "rising, at most 10 a second after the first 20, none without a token or afterwards",
            CLIENTS,
            decided="A call of a few quick tools shows each of them; a burst is no flood.",
        ),
        Fault(
            "B73",
            "state",
            "of an older or newer version",
            "migrated, or refused with a clear error",
            IN_ROUNDS,
        ),
    )
}
