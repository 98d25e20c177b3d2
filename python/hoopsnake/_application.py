"""Finds the WSGI application that the command line names. Called by the extension before it serves.

Only this: no request is handled here, and nothing is printed. What the operator got wrong is raised as an
:class:`ApplicationError` with one sentence that names it and the remedy. What the application got wrong while it was
imported is raised as the same error with the application's own traceback in it, for the caller to print first.
"""

import ast
import difflib
import importlib
import inspect
import os
import pkgutil
import platform
import sys
import sysconfig
import traceback
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn, Optional

__all__ = ["ApplicationError", "describe_python", "load", "prepare_path"]

DEFAULT_CALLABLE = "application"
# A sentence lists no more names than this.
NAMES_SHOWN_MAX = 5
# How alike a name must be to be suggested (difflib's ratio).
LIKENESS_MIN = 0.75


class ApplicationError(Exception):
    """Why there is no application to serve: ``traceback`` (or ``""``) goes first, ``sentence`` on the last line."""

    def __init__(self, sentence: str, traceback: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.traceback = traceback


class _Target(NamedTuple):
    """A parsed ``module:attribute.path(arguments)``."""

    spec: str
    module: str
    path: list[str]
    # None: the object itself is the application; otherwise it is called with these.
    arguments: Optional[list[Any]]
    keywords: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.module}:{'.'.join(self.path)}"


def load(spec: str) -> Callable[..., Any]:
    """The application that ``spec`` names.

    ``module`` (its ``application``), ``module:callable``, ``module:attribute.attribute``, or
    ``module:factory("argument", n=1)`` with literal arguments. Raises :class:`ApplicationError`.
    """
    target = _parse(spec)
    module = _import(target)
    found = _resolve(module, target)
    if target.arguments is None:
        _check_callable(found, target.name)
        return found  # type: ignore[no-any-return]
    return _build(found, target)


def prepare_path(chdir: Optional[str], pythonpath: Sequence[str]) -> None:
    """Changes to ``chdir``, then puts ``pythonpath`` (in order) and the working directory at the front of ``sys.path``.

    The working directory is put there as an absolute path, so that it stays the same if the application changes to
    another one. Relative entries of ``pythonpath`` are taken from the working directory after ``chdir``. Raises
    :class:`ApplicationError` for what doesn't exist.
    """
    if chdir is not None:
        try:
            os.chdir(chdir)
        except OSError as error:
            raise ApplicationError(f"--chdir {chdir}: {error.strerror}. Name an existing folder.") from None
    front = []
    for entry in pythonpath:
        path = os.path.abspath(entry)
        if not os.path.exists(path):
            raise ApplicationError(f"--pythonpath {entry}: {path} doesn't exist. Name an existing folder.")
        front.append(path)
    front = list(dict.fromkeys([*front, os.getcwd()]))
    sys.path[:] = front + [entry for entry in sys.path if entry and entry not in front]
    importlib.invalidate_caches()


def describe_python() -> str:
    """The interpreter in a few words, for the start-up block: ``CPython 3.11.7, venv /srv/site/.venv``."""
    version = f"{platform.python_implementation()} {platform.python_version()}"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        version += " free-threaded"
    if sys.prefix != sys.base_prefix:
        return f"{version}, venv {sys.prefix}"
    return f"{version}, no venv ({sys.prefix})"


def _parse(spec: str) -> _Target:
    """Takes ``spec`` apart; nothing is imported or evaluated."""
    module, colon, expression = (part.strip() for part in spec.partition(":"))
    if "/" in module or module.endswith(".py"):
        _refuse_path(spec, module, colon + expression)
    if not module:
        raise ApplicationError(f"'{spec}' names no module. Write module:callable, for example mysite.wsgi:application.")
    if not all(module.split(".")):
        raise ApplicationError(
            f"'{module}' isn't a module's full name. Write it from the top, for example mysite.wsgi."
        )
    if not colon:
        return _Target(spec, module, [DEFAULT_CALLABLE], None, {})
    if not expression:
        raise ApplicationError(f"'{spec}' names no callable after the colon. Write {module}:{DEFAULT_CALLABLE}.")
    try:
        node = ast.parse(expression, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        _refuse_expression(spec, expression)
    if not isinstance(node, ast.Call):
        return _Target(spec, module, _attribute_path(node, spec, expression), None, {})
    path = _attribute_path(node.func, spec, expression)
    if any(keyword.arg is None for keyword in node.keywords):  # **mapping
        _refuse_expression(spec, expression)
    try:
        arguments = [ast.literal_eval(argument) for argument in node.args]
        keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        _refuse_expression(spec, expression)
    return _Target(spec, module, path, arguments, keywords)


def _attribute_path(node: ast.expr, spec: str, expression: str) -> list[str]:
    """``a.b.c`` as a list of names."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        _refuse_expression(spec, expression)
    names.append(node.id)
    return names[::-1]


def _refuse_expression(spec: str, expression: str) -> NoReturn:
    raise ApplicationError(
        f"'{expression}' in '{spec}' is neither a name (application, site.application) nor a call with literal "
        'arguments (create_app("production", debug=False)).'
    ) from None


def _refuse_path(spec: str, path: str, rest: str) -> NoReturn:
    folder, name = os.path.split(path[: -len(".py")] if path.endswith(".py") else path.rstrip("/"))
    if os.path.isabs(path) or ".." in folder.split("/"):
        remedy = f"--chdir {folder or '/'} {name}{rest}"
    else:
        parts = [part for part in (*folder.split("/"), name) if part not in ("", ".")]
        remedy = ".".join(parts) + rest
    raise ApplicationError(f"'{spec}' is a path; name the module as an import statement would: hoopsnake {remedy}")


def _import(target: _Target) -> types.ModuleType:
    """Imports the module; tells a module that isn't there from one that fails."""
    name = target.module
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name
        is_named = missing is not None and (missing == name or name.startswith(missing + "."))
        if is_named and _own_frames(error.__traceback__) is None:
            raise ApplicationError(_not_found(target, missing or name)) from None
        _raise_own(error, f"the module '{name}' can't be imported: it needs '{missing}', which isn't there")
    except SystemExit as error:
        _raise_own(error, f"the module '{name}' ended the program while it was imported (exit status {error.code!r})")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _raise_own(error, f"the module '{name}' can't be imported: {_brief(error)}")


def _not_found(target: _Target, missing: str) -> str:
    """The sentence for a module that isn't there."""
    parent, _, leaf = missing.rpartition(".")
    holder = sys.modules.get(parent) if parent else None
    if holder is not None and not hasattr(holder, "__path__"):
        return f"there is no module '{missing}': '{parent}' is a module, not a package. Did you mean {parent}:{leaf}?"
    places = [entry for entry in sys.path if os.path.isdir(entry)] if holder is None else list(holder.__path__)
    sentence = f"there is no module '{missing}'"
    near = difflib.get_close_matches(leaf, {module.name for module in pkgutil.iter_modules(places)}, 1, LIKENESS_MIN)
    if near:
        sentence += f". Did you mean '{parent + '.' if parent else ''}{near[0]}'?"
    elif holder is not None:
        sentence += f" in the package {', '.join(places)}."
    else:
        sentence += f" in {os.getcwd()} or on the module path. --chdir or --pythonpath says where it is."
    active = os.environ.get("VIRTUAL_ENV")
    if active and os.path.realpath(active) != os.path.realpath(sys.prefix):
        sentence += f" (The active virtual environment is {active}, but Hoopsnake is installed in {sys.prefix}.)"
    return sentence


def _resolve(module: types.ModuleType, target: _Target) -> Any:
    """Follows the attribute path."""
    found: Any = module
    walked = target.module
    for depth, name in enumerate(target.path):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            if _own_frames(error.__traceback__) is not None and not isinstance(found, types.ModuleType):
                _raise_own(error, f"'{name}' of '{walked}' can't be read: {_brief(error)}")
            raise ApplicationError(_no_attribute(found, walked, name)) from None
        except Exception as error:
            _raise_own(error, f"'{name}' of '{walked}' can't be read: {_brief(error)}")
        walked += (":" if depth == 0 else ".") + name
    return found


def _no_attribute(holder: Any, walked: str, name: str) -> str:
    """The sentence for a missing attribute: names what is there."""
    sentence = f"'{walked}' has no '{name}'"
    prefix = walked + (":" if ":" not in walked else ".")
    if not isinstance(holder, types.ModuleType):
        return f"{sentence}: it is {_kind(holder)}."
    if hasattr(holder, "__path__") and name in {found.name for found in pkgutil.iter_modules(holder.__path__)}:
        return f"{sentence}, but there is a module of that name. Did you mean {holder.__name__}.{name}?"
    callables = list(_callables(holder))
    near = difflib.get_close_matches(name, callables, 1, LIKENESS_MIN)
    if near:
        return f"{sentence}. Did you mean {prefix}{near[0]}?"
    if not callables:
        return f"{sentence}, nor any other callable of its own. Is it the right module?"
    more = ", …" if len(callables) > NAMES_SHOWN_MAX else ""
    return (
        f"{sentence}. Its own callables are {', '.join(callables[:NAMES_SHOWN_MAX])}{more}: "
        f"name one, for example {prefix}{callables[0]}"
    )


def _callables(module: types.ModuleType) -> Iterable[str]:
    """Public callables that could be meant: defined in the module or, as an instance, made there (a Flask object)."""
    for name, value in vars(module).items():
        if name.startswith("_") or not callable(value):
            continue
        if isinstance(value, (type, types.FunctionType)) and value.__module__ != module.__name__:
            continue
        if isinstance(value, types.BuiltinFunctionType):
            continue
        yield name


def _build(factory: Any, target: _Target) -> Callable[..., Any]:
    """Calls a factory."""
    if not callable(factory):
        raise ApplicationError(f"'{target.name}' can't be called: it is {_kind(factory)}.")
    try:
        made = factory(*(target.arguments or []), **target.keywords)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _raise_own(error, f"the factory '{target.spec}' failed: {_brief(error)}")
    _check_callable(made, target.spec, "returned ")
    return made  # type: ignore[no-any-return]


def _check_callable(found: Any, name: str, verb: str = "is ") -> None:
    """Refuses what can't be a WSGI application."""
    if not callable(found):
        hint = ""
        if isinstance(found, types.ModuleType):
            hint = f" Did you mean {found.__name__}:{DEFAULT_CALLABLE}?"
        elif verb != "is ":
            hint = " A factory must return the application."
        raise ApplicationError(f"'{name}' {verb}{_kind(found)}, which isn't callable.{hint}")
    call = found if isinstance(found, (types.FunctionType, type)) else type(found).__call__
    if inspect.iscoroutinefunction(call):  # an async def, or an object whose __call__ is one
        raise ApplicationError(
            f"'{name}' {verb}asynchronous (ASGI); Hoopsnake serves WSGI: application(environ, start_response)."
        )
    if isinstance(found, types.FunctionType) and not _takes_two(found):
        raise ApplicationError(
            f"'{name}' {verb}a function that can't be called with (environ, start_response): its parameters are "
            f"{inspect.signature(found, follow_wrapped=False)}. If it makes the application, call it: {name}()"
        )


def _takes_two(function: types.FunctionType) -> bool:
    """Whether a plain function can be called with two positional arguments. In doubt, yes."""
    if hasattr(function, "__signature__"):
        return True
    try:
        inspect.signature(function, follow_wrapped=False).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def _kind(value: Any) -> str:
    """``a str``, ``an int``, ``None``, ``the module mysite``."""
    if value is None:
        return "None"
    if isinstance(value, types.ModuleType):
        return f"the module {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _brief(error: BaseException) -> str:
    """The exception on one line."""
    try:
        message = str(error).strip().partition("\n")[0].rstrip(".")
    except Exception:
        message = ""
    name = type(error).__name__
    return f"{name}: {message}" if message else name


def _own_frames(trace: Optional[types.TracebackType]) -> Optional[types.TracebackType]:
    """The traceback from the application's first frame on; None when only the import system and this file are in it."""
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _is_machinery(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")


def _raise_own(error: BaseException, sentence: str) -> NoReturn:
    """Raises the application's own failure, its traceback without the frames of the import system before it."""
    lines = traceback.format_exception(type(error), error, _own_frames(error.__traceback__))
    raise ApplicationError(f"{sentence}. The traceback is above.", "".join(lines)) from error
