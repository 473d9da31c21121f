"""Methods by name, and what becomes of their replies and exceptions."""

from __future__ import annotations

import inspect
import traceback
import typing
from collections.abc import Callable
from typing import Any, TypeVar, overload

from . import tee
from ._bounds import Mismatch
from ._json import load, plain, to_json
from ._typed import Converter, converter

_SUCCESS = 200
_JsonMethod = TypeVar("_JsonMethod", bound=Callable[..., Any])
_RawMethod = TypeVar("_RawMethod", bound=Callable[[str], str])


class Failure(Exception):  # noqa: N818 - the name in the WIT
    """Raise it to answer a call with a status (as an HTTP status, 0 to 65535 but 200) and a message for the caller.

    Nothing of the call is committed: what it put, deleted, incremented or emitted is discarded.
    """

    def __init__(self, status: int, message: str) -> None:
        if not 0 <= status <= 0xFFFF or status == _SUCCESS:
            raise ValueError(f"a failure status must be between 0 and 65535 and none of success, not {status}")
        super().__init__(status, message)
        self.status = status
        self.message = message.encode("utf-8", "backslashreplace").decode()


class TrustedApp:
    """The methods of a trusted application. Make one named `app` in `app.py`."""

    def __init__(self) -> None:
        self._methods: dict[str, Callable[[str], str]] = {}

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods; each must also stand in `ta.toml`."""
        return tuple(sorted(self._methods))

    @overload
    def method(self, function: _JsonMethod, /) -> _JsonMethod: ...

    @overload
    def method(self, name: str, /) -> Callable[[_JsonMethod], _JsonMethod]: ...

    def method(self, target: Any, /) -> Any:
        """Decorates a function of the payload that returns something JSON can hold, or of nothing.

        What it declares is checked: a payload that is not of its parameter's type is answered with 400 and the path of
        what is wrong, and a reply that is not of its return type with 500. Dataclasses and TypedDicts are built from
        JSON; `edgeclave_ta._typed` lists what else can be declared. Without annotations, or with Any, the function gets
        the decoded JSON as it is. A function without a parameter takes null only.

        Use as `@app.method`, or as `@app.method("name")` when the method is not called like the function.

        Raises:
            TypeError: JSON cannot be read as a declared type, or the function cannot be called with a payload.
        """
        if isinstance(target, str):
            return lambda function: self._add(target, function, _json_method(target, function))
        return self._add(target.__name__, target, _json_method(target.__name__, target))

    def raw_method(self, function: _RawMethod, /) -> _RawMethod:
        """Decorates a function of the payload's text that returns the reply's text. The reply must still be JSON."""
        added: _RawMethod = self._add(function.__name__, function, function)
        return added

    def invoke(self, method: str, payload: str) -> str:
        """Calls a method with JSON text, as the enclave does.

        Raises:
            Failure: the method's own, 404 for an unknown method, 400 for a payload that is not JSON, and 500 for any
                other exception, whose traceback goes to the log and not to the caller.
        """
        function = self._methods.get(method)
        if function is None:
            raise Failure(404, f"there is no method {method}")
        try:
            reply = function(payload)
            if not isinstance(reply, str):
                raise TypeError(f"a raw method must return text, not {type(reply).__name__}")  # noqa: TRY301
            reply.encode()  # text that is not Unicode would trap in the component's runtime
        except (Failure, KeyboardInterrupt):
            raise
        except BaseException as error:  # what is not caught would trap: no traceback, and the instance's memory lost
            tee.log(tee.ERROR, _own_traceback(error))
            raise Failure(500, f"method {method} failed with {type(error).__name__}; its log tells more") from error
        return reply

    def _add(self, name: str, function: Any, call: Callable[[str], str]) -> Any:
        if name in self._methods:
            raise ValueError(f"there are two methods named {name}")
        self._methods[name] = call
        return function


def _own_traceback(error: BaseException) -> str:
    """The traceback from the application's own first line on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


def _json_method(name: str, function: Callable[..., Any]) -> Callable[[str], str]:
    takes, returns = _declared(name, function)

    def call(payload: str) -> str:
        try:
            value = load(payload)
        except Mismatch as mismatch:
            raise Failure(400, str(mismatch)) from None
        except (ValueError, RecursionError) as error:
            raise Failure(400, "the payload is not JSON") from error
        try:
            arguments = () if takes is None and value is None else ((takes or _nothing)(value, ""),)
        except (Mismatch, RecursionError) as error:
            raise Failure(400, str(error)) from None
        reply = function(*arguments)
        try:
            if returns is not None:
                returns(plain(reply), "")
            return to_json(reply)
        except Mismatch as mismatch:
            tee.log(tee.ERROR, f"method {name} returned something else than it declares: {mismatch.what}")
            raise Failure(500, f"method {name} returned something else than it declares") from mismatch
        except (TypeError, ValueError, RecursionError) as error:
            tee.log(tee.ERROR, f"method {name} returned a value that JSON cannot hold: {error}")
            raise Failure(500, f"method {name} returned a value that JSON cannot hold") from error

    return call


def _declared(name: str, function: Callable[..., Any]) -> tuple[Converter | None, Converter | None]:
    """How its payload is read (None: it takes none) and its reply checked (None: it declares nothing)."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function that is not written in Python
        return converter(Any), None
    parameters = list(signature.parameters)
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"method {name}: must not be async; nothing in the TEE is waited for")
    try:
        signature.bind(*parameters[:1])
    except TypeError:
        raise TypeError(f"method {name}: must take the payload and nothing else") from None
    hints = typing.get_type_hints(function, include_extras=True) if hasattr(function, "__annotations__") else {}
    try:
        takes = converter(hints.get(parameters[0], Any)) if parameters else None
        return takes, converter(hints["return"]) if "return" in hints else None
    except TypeError as error:
        raise TypeError(f"method {name}: {error}") from None


def _nothing(_value: Any, path: str) -> Any:
    raise Mismatch(path, "must be null: this method takes no payload")
