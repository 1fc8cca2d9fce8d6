"""The offline stand-in: what it calls, what it follows up on, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from mcp_types import ResourceLink

from agentloop import Agent, RunResult, Stop, ToolError
from agentloop_providers import OfflineProvider

USERS = [(1, "Ada Lovelace", 7), (2, "Alan Turing", 8), (3, "Grace Hopper", 7)]
PAGES = {
    "https://example.org/eiffel": "It was finished in 1889.\nThe Eiffel Tower is 330 metres tall.",
    "https://example.org/towers": "Towers are buildings.",
}


def get_weather(city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> dict[str, Any]:
    """Get the current weather for a city."""
    return {"city": city, "temperature": 21, "sky": "clear", "unit": unit}


def calculate(expression: str) -> str:
    """Evaluate an arithmetic expression."""
    return {"12*(3+4)": "84", "6 * 7": "42"}[expression]


def multiply(a: float, b: float) -> float:
    """Multiply two numbers."""
    return a * b


def mean(values: list[float]) -> float:
    """The mean of some numbers."""
    return sum(values) / len(values)


def convert(amount: float, from_unit: str, to_unit: str) -> str:
    """Convert an amount from one unit to another."""
    return f"{amount * 1.609:.2f} {to_unit}"


def current_time() -> str:
    """The current time in UTC."""
    return "2030-05-06T12:00:00Z"


def list_users() -> list[dict[str, Any]]:
    """List all users."""
    return [{"id": id, "name": name} for id, name, _ in USERS]


def get_user(user_id: int) -> dict[str, Any]:
    """Get everything about one user."""
    found = next(user for user in USERS if user[0] == user_id)
    email = found[1].split()[0].lower() + "@example.com"
    return {"id": found[0], "name": found[1], "team_id": found[2], "email": email}


def get_team(team_id: int) -> dict[str, Any]:
    """Get a team by its id."""
    return {"team_id": team_id, "name": {7: "Analysts", 8: "Codebreakers"}[team_id]}


def delete_user(user_id: int) -> str:
    """Delete a user."""
    return f"deleted {user_id}"


def send_email(to: str, body: str) -> str:
    """Send an email."""
    return f"sent to {to}"


def search_web(query: str) -> list[dict[str, Any]]:
    """Search the web."""
    return [{"title": "The Eiffel Tower", "url": "https://example.org/eiffel"}]


def fetch_page(url: str) -> str:
    """Fetch a web page as text."""
    return PAGES[url]


def run_sql(sql: str) -> str:
    """Run an SQL query."""
    return "42"


PEOPLE = [list_users, get_user, get_team, delete_user]


async def ask(question: str, *tools: Callable[..., Any], **options: Any) -> RunResult[Any]:
    agent = Agent("helper", "You help.", tools=tools, **options)
    return await agent.run(question, provider=OfflineProvider())


def replies(result: RunResult[Any]) -> list[list[tuple[str, dict[str, Any]]]]:
    """The calls of each reply that made any."""
    found = [
        [(block.name, block.input) for block in message.content_as_list if block.type == "tool_use"]
        for message in result.messages
        if message.role == "assistant"
    ]
    return [calls for calls in found if calls]


@pytest.mark.parametrize(
    ("tools", "question", "wanted"),
    [
        ([calculate, search_web], "What is 12*(3+4)?", [("calculate", {"expression": "12*(3+4)"})]),
        ([calculate], "What is 6 times 7?", [("calculate", {"expression": "6 * 7"})]),
        ([multiply], "What is 6 times 7?", [("multiply", {"a": 6, "b": 7})]),
        ([mean], "What is the mean of 3, 5 and 10?", [("mean", {"values": [3, 5, 10]})]),
        (
            [convert],
            "Convert 10 miles to kilometres",
            [("convert", {"amount": 10, "from_unit": "miles", "to_unit": "kilometres"})],
        ),
        ([current_time, get_weather], "What time is it?", [("current_time", {})]),
        (
            [get_weather],
            "weather in Oslo in fahrenheit, please",
            [("get_weather", {"city": "Oslo", "unit": "fahrenheit"})],
        ),
        (
            [send_email, get_user],
            "Send an email to bob@example.com saying that lunch is at 12",
            [("send_email", {"to": "bob@example.com", "body": "lunch is at 12"})],
        ),
        ([get_user, search_web], "Show user 2", [("get_user", {"user_id": 2})]),
    ],
)
async def test_arguments_come_from_the_question(
    tools: list[Callable[..., Any]], question: str, wanted: list[tuple[str, dict[str, Any]]]
) -> None:
    result = await ask(question, *tools)
    assert replies(result)[0] == wanted
    assert result.stop is Stop.DONE


async def test_several_values_are_looked_up_in_one_reply() -> None:
    result = await ask("What is the weather in Paris, London and New York?", get_weather)
    assert replies(result) == [
        [("get_weather", {"city": city}) for city in ("Paris", "London", "New York")]
    ]
    assert all(city in result.text for city in ("Paris", "London", "New York"))


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("Which is larger, Oslo or Rome?", ["Oslo", "Rome"]),
        ("Compare Oslo with 'St. Ives' and Rome", ["St. Ives", "Oslo", "Rome"]),
        ("Oslo or Rome?", ["Oslo", "Rome"]),
        ("How do you do?", []),
    ],
)
async def test_names_are_looked_up_though_no_word_of_the_question_is_the_tools(
    question: str, names: list[str]
) -> None:
    def population(city: str) -> int:
        """Look up the inhabitants."""
        return len(city) * 1000

    result = await ask(question, population)
    calls = [call for turn in replies(result)[:1] for call in turn]
    assert calls == [("population", {"city": name}) for name in names]
    assert all(f"(population(city='{name}'))" in result.text for name in names)


@pytest.mark.parametrize(
    ("question", "begins"),
    [
        ("Which is larger, Oslo or Rome?", "Rome: 2754719 (population(city='Rome'))\n"),
        ("Which has fewer people, 'Oslo' or Rome?", "Oslo: 717710 (population(city='Oslo'))\n"),
        ("Which is larger, Oslo or Rome or Roma?", "717710 (population(city='Oslo'))\n"),
    ],
)
async def test_what_is_compared_is_answered_by_name_unless_it_is_equal(
    question: str, begins: str
) -> None:
    def population(city: str) -> int:
        """Look up how many people live in a city."""
        return 717_710 if city == "Oslo" else 2_754_719

    assert (await ask(question, population)).text.startswith(begins)


async def test_a_name_goes_to_the_tool_that_the_question_means() -> None:
    def get_capital(country: str) -> str:
        """The capital of a country."""
        return f"Capital of {country}"

    result = await ask("What is the capital of Peru, and of Chile?", get_capital, get_weather)
    assert replies(result) == [[("get_capital", {"country": c}) for c in ("Peru", "Chile")]]


@pytest.mark.parametrize(
    ("prompt", "calls"),
    [
        ("Hi! My name is Bob.", 0),
        ("Hello Bob", 0),
        ("Good morning, I am Anna from Rome.", 0),
        ("Thanks, that was Rome!", 2),  # it may be more than thanks
        ("I live in Paris.", 0),
        ("I meant Paris.", 2),
        ("I live in Paris, how is life there?", 2),
        ("My weather is that of Paris.", 1),  # which names a tool, so it may be a request
        ("I need to know about Paris.", 2),
    ],
)
async def test_who_only_says_hello_or_something_of_himself_is_answered_without_tools(
    prompt: str, calls: int
) -> None:
    def search(query: str) -> str:
        """Search the web."""
        return "Nothing."

    result = await ask(prompt, get_weather, search)
    assert len({name for reply in replies(result) for name, _ in reply}) == calls
    assert calls or prompt in result.text


async def test_a_required_value_that_the_question_does_not_give_is_not_made_up() -> None:
    result = await ask("How many orders are there?", run_sql)
    assert replies(result) == []
    assert "no language model" in result.text


async def test_what_changes_things_is_called_only_when_ordered() -> None:
    assert "delete_user" not in str(replies(await ask("What about user 2?", *PEOPLE)))
    assert replies(await ask("Delete user 2", *PEOPLE))[0] == [("delete_user", {"user_id": 2})]


async def test_ids_that_results_name_are_followed() -> None:
    result = await ask("Which team is Grace Hopper in?", *PEOPLE)
    assert replies(result) == [
        [("list_users", {})],
        [("get_user", {"user_id": 3})],
        [("get_team", {"team_id": 7})],
    ]
    assert "Analysts" in result.text


async def test_addresses_that_results_name_are_fetched() -> None:
    result = await ask("How tall is the Eiffel Tower?", search_web, fetch_page)
    assert replies(result)[1] == [("fetch_page", {"url": "https://example.org/eiffel"})]
    assert result.text.startswith("330 metres")


async def test_links_that_results_hold_are_read() -> None:
    def find(query: str) -> ResourceLink:
        """Find documents."""
        return ResourceLink(name="report", uri="memo://reports/7")

    def read_resource(uri: str) -> str:
        """Read a resource."""
        return "The bridge opened in 1932."

    result = await ask("When did the bridge open?", find, read_resource)
    assert replies(result)[1] == [("read_resource", {"uri": "memo://reports/7"})]
    assert result.text.startswith("1932")


async def test_lines_that_results_name_are_read_in_their_place() -> None:
    def grep(pattern: str) -> str:
        """Search the files for a text."""
        return "src/pool.c:40: /* how many workers the pool starts */"

    def view(file: str, start_line: int, end_line: int) -> str:
        """View part of a file."""
        code = {40: "/* how many workers the pool starts */", 41: "static int workers = 12;"}
        return "\n".join(f"{n:4} | {code.get(n, ';')}" for n in range(start_line, end_line + 1))

    result = await ask("How many workers does the pool start?", grep, view)
    (name, arguments) = replies(result)[1][0]
    assert (name, arguments["file"]) == ("view", "src/pool.c")
    assert arguments["start_line"] <= 40 <= arguments["end_line"]
    assert result.text.startswith("12: `static int workers = 12;` (src/pool.c:41")


async def test_a_path_that_an_error_suggests_is_tried() -> None:
    def read_file(path: str) -> str:
        """Read a file."""
        if path != "docs/setup.md":
            raise ToolError(f"There is no {path}; did you mean docs/setup.md?")
        return "# Setup\nRun make."

    result = await ask("What does setup.md say?", read_file)
    assert replies(result) == [
        [("read_file", {"path": "setup.md"})],
        [("read_file", {"path": "docs/setup.md"})],
    ]
    assert "Setup" in result.text


async def test_it_stops_by_itself_and_never_repeats_a_call() -> None:
    pages = iter(range(1000))

    def search(text: str) -> str:
        """Search the notes."""
        return "\n".join(f"note{next(pages)}.md:1: the answer is in the note" for _ in range(5))

    def read(path: str) -> str:
        """Read a note."""
        return f"See note{next(pages)}.md for the answer of the note."

    result = await ask("What is the answer in the note?", search, read)
    calls = [str(call) for turn in replies(result) for call in turn]
    assert result.stop is Stop.DONE
    assert result.steps <= 6
    assert len(calls) == len(set(calls)) > 2


async def test_sub_agents_get_the_question_at_the_same_time() -> None:
    weather = Agent("weather", description="Knows the weather.", provider=OfflineProvider())
    news = Agent("news", description="Knows the news.", provider=OfflineProvider())
    question = "How is the weather, and what is the news?"
    result = await ask(question, weather.as_tool(), news.as_tool())
    assert replies(result) == [[("weather", {"prompt": question}), ("news", {"prompt": question})]]


async def test_the_question_is_no_answer_to_itself() -> None:
    def search(text: str) -> str:
        """Search the documents."""
        return (
            "faq.md:1: how many seats does the car have\n"
            "faq.md:2:\ncar.md:9: The car has 5 seats in two rows."
        )

    result = await ask("How many seats does the car have?", search)
    assert result.text.startswith("5: The car has 5 seats in two rows. (car.md:9)")


async def test_an_answer_says_where_it_is_from_and_who_wrote_it() -> None:
    result = await ask("What is the email of Alan Turing?", *PEOPLE)
    first, *_, last = result.text.splitlines()
    assert first.startswith("alan@example.com")
    assert "get_user(user_id=2)" in first
    assert "no language model" in last


async def test_failures_are_told() -> None:
    def lookup(name: str) -> str:
        """Look up a person."""
        raise ToolError("The directory is closed.")

    result = await ask("Who is Ada Lovelace?", lookup)
    assert "The directory is closed." in result.text


@pytest.mark.parametrize("prompt", ["", "  \n ", "hello"])
async def test_without_tools_it_has_only_the_prompt(prompt: str) -> None:
    result = await ask(prompt)
    assert result.stop is Stop.DONE
    assert result.text.endswith("it only repeats what the prompt says.)")


async def test_without_tools_it_quotes_from_the_prompt() -> None:
    result = await ask("Sum it up.\nThe ship left on Monday. It carried 400 tons of grain.")
    assert "- It carried 400 tons of grain." in result.text
