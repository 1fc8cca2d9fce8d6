"""From ``file.py:name`` or ``package.module:name`` to an agent."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from agentloop.agent import Agent
from agentloop.cli._arguments import values_for
from agentloop.errors import DefinitionError


def load(spec: str, arguments: Mapping[str, str]) -> Any:
    """What ``spec`` names; where that is a function, what it gives for ``arguments``.

    The function may be async or give an async context manager: :func:`opened` sees to that.
    Raises :class:`DefinitionError`, in one line, for whatever is wrong. What is printed meanwhile
    goes to stderr.
    """
    with redirect_stdout(sys.stderr):
        return _load(spec, arguments)


def _load(spec: str, arguments: Mapping[str, str]) -> Any:
    home, _, name = spec.rpartition(":")
    if name.endswith(".py") and Path(spec).is_file():
        raise DefinitionError(f"which agent of {spec}? Write {spec}:NAME")
    if not home or not name or name.endswith(".py"):
        raise DefinitionError(f"AGENT is file.py:name or package.module:name, not {spec!r}")
    module = _module(home)
    try:
        found: Any = functools.reduce(getattr, name.split("."), module)
    except AttributeError:
        names = ", ".join(_agents_in(module)) or "no agent"
        raise DefinitionError(f"{home} has no {name!r}; it has: {names}") from None
    if isinstance(found, Agent):
        if arguments:
            raise DefinitionError(f"{spec} is an agent, not a function: it takes no --arg")
        return cast("Agent[Any]", found)
    if not callable(found):
        raise DefinitionError(f"{spec} is no agent and no function, but: {type(found).__name__}")
    values = values_for(spec, found, arguments)
    try:
        return found(**values)
    except (Exception, SystemExit) as error:
        raise _blame(spec, error, getattr(module, "__file__", None)) from error


@asynccontextmanager
async def opened(spec: str, loaded: Any) -> AsyncGenerator[Agent[Any]]:
    """The agent in what :func:`load` gave, for as long as it is needed."""
    async with AsyncExitStack() as stack:
        try:
            with redirect_stdout(sys.stderr):
                if inspect.isawaitable(loaded):
                    loaded = await loaded
                if hasattr(loaded, "__aenter__"):
                    loaded = await stack.enter_async_context(loaded)
        except Exception as error:
            raise _blame(spec, error) from error
        if not isinstance(loaded, Agent):
            raise DefinitionError(f"{spec} gives no agent, but: {type(loaded).__name__}")
        yield loaded


def _module(home: str) -> ModuleType:
    """The module that ``home``, a file or a dotted name, stands for; imported like a script."""
    path = Path(home).resolve()
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise DefinitionError(f"there is no file {home}")
    sys.path.insert(0, str(path.parent if is_file else Path.cwd()))
    try:
        return _from_file(path) if is_file else importlib.import_module(home)
    except (Exception, SystemExit) as error:
        raise _blame(home, error, str(path)) from error


def _from_file(path: Path) -> ModuleType:
    # A name that is taken must not be taken away from those who use it.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_agent_file"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _agents_in(module: ModuleType) -> list[str]:
    """The names in ``module`` that AGENT may mean: its agents and its own public functions."""
    return [
        name
        for name, value in vars(module).items()
        if isinstance(value, Agent)
        or (inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_")
    ]


def _blame(spec: str, error: BaseException, file: str | None = None) -> DefinitionError:
    """The error in one line, with the line of the author's file where there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    here = [frame for frame in frames if frame.filename == file]
    where = f" (line {here[-1].lineno})" if here else ""
    kind = "" if isinstance(error, DefinitionError) else f"{type(error).__name__}: "
    return DefinitionError(f"{spec}{where}: {kind}{error}")
