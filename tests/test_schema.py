"""From a signature and a docstring to a schema, and to checked arguments."""

from __future__ import annotations

import enum
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agentloop.errors import DefinitionError
from agentloop.schema import ArgumentsInvalid, Signature, read_docstring


def schema_of(fn: Callable[..., Any]) -> dict[str, Any]:
    return Signature(fn, label="t").schema


def properties_of(fn: Callable[..., Any]) -> dict[str, Any]:
    return schema_of(fn)["properties"]


def checked(fn: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    return Signature(fn, label="t").check(arguments)


def refusal(fn: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ArgumentsInvalid) as caught:
        checked(fn, **arguments)
    return str(caught.value)


# --- docstrings --------------------------------------------------------------------------------

GOOGLE = """Find things.

More about it.

Args:
    query: What to look for,
        over two lines.
    limit (int, optional): How many.
    *extra: More of them.

Returns:
    query: not this one.

Raises:
    ValueError: never.
"""

NUMPY = """Find things.

More about it.

Parameters
----------
query : str
    What to look for,
    over two lines.
limit : int, optional
    How many.

Returns
-------
query : str
    Not this one.
"""

SPHINX = """Find things.

More about it.

:param query: What to look for,
    over two lines.
:param int limit: How many.
:type limit: int
:returns: Not this one.
:raises ValueError: never.
"""


@pytest.mark.parametrize("doc", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_docstrings_of_each_style_describe_the_tool_and_its_parameters(doc: str) -> None:
    summary, described = read_docstring(doc)
    assert summary == "Find things.\n\nMore about it."
    assert described["query"] == "What to look for, over two lines."
    assert described["limit"] == "How many."


@pytest.mark.parametrize(
    ("doc", "summary"),
    [
        ("", ""),
        ("One line.", "One line."),
        ("Note: this is a summary: not a section.", "Note: this is a summary: not a section."),
        ("Two\nlines.\n\n    - a list: kept", "Two\nlines.\n\n- a list: kept"),
        ("Find.\n\nExample:\n    find(query: str)", "Find."),
    ],
)
def test_what_is_no_section_belongs_to_the_summary(doc: str, summary: str) -> None:
    assert read_docstring(doc) == (summary, {})


def test_descriptions_come_into_the_schema() -> None:
    def find(query: str, limit: int = 3) -> None:
        """Find.

        Args:
            query: What to look for.
            limit: How many.
            nothing: No such parameter.
        """

    assert Signature(find, label="find").summary == "Find."
    assert schema_of(find) == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What to look for."},
            "limit": {"type": "integer", "description": "How many.", "default": 3},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


def test_a_description_beside_the_type_wins_over_the_docstring() -> None:
    def find(query: Annotated[str, Field(description="The words.", max_length=5)]) -> None:
        """Find.

        Args:
            query: What to look for.
        """

    assert properties_of(find)["query"] == {
        "type": "string",
        "description": "The words.",
        "maxLength": 5,
    }


# --- types -------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Author(BaseModel):
    """Who wrote it."""

    title: str | None = None
    name: str
    friends: list[Author] = []


@dataclass
class Span:
    first: date
    last: date


class Options(TypedDict, total=False):
    deep: bool


def test_types_of_all_kinds_have_schemas() -> None:
    def f(
        color: Color,
        mode: Literal["fast", "slow"],
        author: Author,
        span: Span,
        options: Options,
        maybe: int | None = None,
        pairs: dict[str, tuple[int, float]] | None = None,
        tags: set[str] = frozenset(),  # type: ignore[assignment]
        anything=None,  # type: ignore[no-untyped-def]
    ) -> None: ...

    schema = schema_of(f)
    found = schema["properties"]
    assert schema["required"] == ["color", "mode", "author", "span", "options"]
    assert found["mode"] == {"type": "string", "enum": ["fast", "slow"]}
    assert found["maybe"] == {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}
    assert found["tags"]["uniqueItems"] is True
    assert found["anything"] == {"default": None}
    assert schema["$defs"]["Color"] == {"type": "string", "enum": ["red", "blue"]}
    assert schema["$defs"]["Author"]["properties"]["friends"]["items"] == {"$ref": "#/$defs/Author"}


def test_forward_references_are_found_in_the_functions_module() -> None:
    def f(author: "Author", others: list["Author"]) -> None: ...  # noqa: UP037

    assert checked(f, author={"name": "Ann"}, others=[{"name": "Bo"}]) == {
        "author": Author(name="Ann"),
        "others": [Author(name="Bo")],
    }


def test_titles_are_left_out_but_not_things_that_are_called_title() -> None:
    def f(author: Author, title: str, shape: dict[str, str] = {"title": "round"}) -> None: ...  # noqa: B006

    schema = schema_of(f)
    assert "title" not in schema
    assert schema["properties"]["title"] == {"type": "string"}
    assert schema["properties"]["shape"]["default"] == {"title": "round"}
    assert "title" in schema["$defs"]["Author"]["properties"]
    assert "title" not in schema["$defs"]["Author"]


def test_arguments_arrive_as_the_types_that_the_function_names() -> None:
    def f(color: Color, author: Author, span: Span, n: float, ids: list[int]) -> None: ...

    got = checked(
        f,
        color="blue",
        author={"name": "Ann", "friends": [{"name": "Bo"}]},
        span={"first": "2026-01-01", "last": "2026-02-01"},
        n="1.5",
        ids=["1", 2],
    )
    assert got == {
        "color": Color.BLUE,
        "author": Author(name="Ann", friends=[Author(name="Bo")]),
        "span": Span(date(2026, 1, 1), date(2026, 2, 1)),
        "n": 1.5,
        "ids": [1, 2],
    }


def test_defaults_are_filled_in_and_never_shared() -> None:
    def f(words: list[str] = [], sort: bool = True, n: int = Field(2, ge=1)) -> None: ...  # noqa: B006

    first = checked(f)
    first["words"].append("mine")
    assert checked(f) == {"words": [], "sort": True, "n": 2}
    assert "greater than or equal to 1" in refusal(f, n=0)


def test_a_default_without_a_json_form_is_left_out_of_the_schema_quietly() -> None:
    missing = object()

    def f(x: Any = missing) -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert properties_of(f) == {"x": {}}
    assert checked(f) == {"x": missing}


@pytest.mark.parametrize(
    "name", ["json", "copy", "schema", "dict", "model_config", "model_fields", "validate", "self_"]
)
def test_a_parameter_may_be_called_like_something_that_models_have(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def f({name}: int, other: str = 'x') -> None: ...", namespace)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert schema_of(namespace["f"])["required"] == [name]
    assert checked(namespace["f"], **{name: 3}) == {name: 3, "other": "x"}


def test_parameters_are_called_what_the_function_calls_them() -> None:
    def f(
        x: Annotated[int, Field(alias="ex")],
        y: int = Field(2, validation_alias="why"),
    ) -> None: ...

    assert list(properties_of(f)) == ["x", "y"]
    assert checked(f, x=1) == {"x": 1, "y": 2}


# --- functions of all kinds --------------------------------------------------------------------


class Shelf:
    """A shelf of books."""

    def find(self, title: str) -> str:
        """Find a book."""
        return title

    async def lend(self, title: str) -> str:
        """Lend a book."""
        return title

    @classmethod
    def build(cls, width: int) -> None:
        """Build one."""

    @staticmethod
    def paint(color: Color) -> None:
        """Paint one."""

    def __call__(self, shelf: int) -> None:
        """Look at one shelf."""


@pytest.mark.parametrize(
    ("fn", "parameter", "summary"),
    [
        (Shelf().find, "title", "Find a book."),
        (Shelf().lend, "title", "Lend a book."),
        (Shelf.build, "width", "Build one."),
        (Shelf.paint, "color", "Paint one."),
        (Shelf(), "shelf", "Look at one shelf."),
    ],
)
def test_methods_and_callable_objects(fn: Any, parameter: str, summary: str) -> None:
    signature = Signature(fn, label="t")
    assert list(signature.schema["properties"]) == [parameter]
    assert signature.summary == summary


def test_what_a_partial_binds_is_neither_shown_to_the_model_nor_taken_from_it() -> None:
    def fetch(url: str, token: str = "none", retries: int = 1) -> None:
        """Fetch a page."""

    bound = functools.partial(functools.partial(fetch, token="hunter2"), retries=5)
    signature = Signature(bound, label="fetch")
    assert signature.summary == "Fetch a page."
    assert list(signature.schema["properties"]) == ["url"]
    assert "hunter2" not in str(signature.schema)
    assert signature.check({"url": "x"}) == {"url": "x"}
    with pytest.raises(ArgumentsInvalid):
        signature.check({"url": "x", "token": "mine"})


def test_a_wrapped_function_is_described_by_what_it_wraps() -> None:
    def find(title: str) -> None:
        """Find a book."""

    @functools.wraps(find)
    def logged(*args: Any, **kwargs: Any) -> None:
        find(*args, **kwargs)

    assert list(properties_of(logged)) == ["title"]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("def f(*args: int): ...", "args has no schema"),
        ("def f(**kwargs: int): ...", "kwargs has no schema"),
        ("def f(x: int, /): ...", "'x' cannot be given by name"),
        ("def f(_x: int): ...", "'_x' cannot be given by name"),
        ("def f(x: Nowhere): ...", "signature cannot be read"),
        ("def f(x: 'Nowhere'): ...", "no JSON schema"),
        ("def f(x: '1 +'): ...", "no JSON schema"),
        ("def f(x: object()): ...", "no JSON schema"),
        ("class C: ...\ndef f(x: C): ...", "no JSON schema"),
        ("from typing import Callable\ndef f(x: Callable[[], int]): ...", "no JSON schema"),
        (
            "from typing import Annotated\nfrom pydantic import Field\n"
            "def f(x: Annotated[str, Field(pattern='(')]): ...",
            "no JSON schema",
        ),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_when_it_is_made_one(
    source: str, wanted: str
) -> None:
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    with pytest.raises(DefinitionError, match="tool 'find'.*" + wanted):
        Signature(namespace["f"], label="find")


# --- arguments that do not fit -----------------------------------------------------------------


def book(title: str, year: int, tags: list[str] | None = None) -> None:
    """Add a book."""


def test_a_refusal_says_what_is_wrong_with_which_argument_and_what_the_tool_takes() -> None:
    assert refusal(book, title=5, year="x", tags=["a", 1]) == (
        "title: Input should be a valid string (got 5); "
        'year: Input should be a valid integer, unable to parse string as an integer (got "x"); '
        "tags.1: Input should be a valid string (got 1). "
        "The tool takes: title, year, tags."
    )
    assert refusal(book, year=1) == ("title: Field required. The tool takes: title, year, tags.")
    assert refusal(book, title="a", year=1, pages=3).startswith(
        "pages: Extra inputs are not permitted (got 3)"
    )


def test_a_refusal_is_bounded_however_much_came() -> None:
    assert len(refusal(book, title="a", year="9" * 20_000_000)) < 500
    many = refusal(book, title="a", year=1, tags=[1] * 5000)
    assert "and 4992 more" in many
    assert len(many) < 1000


def test_a_refusal_copes_with_values_that_json_has_no_form_for() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "title" in refusal(book, title=loop, year=1)
    assert "title" in refusal(book, title={1}, year=1)


def test_no_arguments_is_what_a_tool_without_parameters_takes() -> None:
    def now() -> None: ...

    assert schema_of(now) == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    assert checked(now) == {}
    assert "The tool takes: no arguments." in refusal(now, x=1)
