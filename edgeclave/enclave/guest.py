"""The trusted application as it runs: one component in one wasmtime store, and the ends it can come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wasmtime import Engine, Store, WasmtimeError
from wasmtime.component import U16, Component, Func, Linker, RecordType, ResultType, String, ValType

from edgeclave.enclave.deadline import DeadlineTicker
from edgeclave.errors import PackageError

MAX_FAILURE_CHARACTERS = 4096
_MEMORIES = 4  # a component of one toolchain has one; each may be as large as the manifest's limit
_TABLES = 32
_TABLE_ELEMENTS = 1 << 17
_INSTANCES = 256
_INTERRUPTED = 1  # epochs: the ticker advances one when a deadline passes


@dataclass(frozen=True)
class GuestFailure:
    """The trusted application's own failure."""

    status: int
    message: str


class GuestEndedError(Exception):
    """The trusted application trapped or was ended; its memory is gone. `timed_out`: by the deadline."""

    def __init__(self, message: str, *, timed_out: bool) -> None:
        super().__init__(message)
        self.timed_out = timed_out


class Guest:
    """Runs one component. After an end the next call gets a fresh one; compiled code and linker are kept."""

    def __init__(
        self, engine: Engine, component: Component, linker: Linker, ticker: DeadlineTicker, memory_bytes: int
    ) -> None:
        self._engine = engine
        self._component = component
        self._linker = linker
        self._ticker = ticker
        self._memory_bytes = memory_bytes
        self._store: Store | None = None
        self._invoke: Func | None = None

    def prepare(self, seconds: float) -> None:
        """Instantiates if there is no living instance.

        Raises:
            GuestEndedError: it did not come up.
            PackageError: `no-invoke`.
        """
        if self._invoke is not None:
            return
        store = Store(self._engine)
        store.set_limits(
            memory_size=self._memory_bytes,
            table_elements=_TABLE_ELEMENTS,
            instances=_INSTANCES,
            tables=_TABLES,
            memories=_MEMORIES,
        )
        self._store = store
        store.set_epoch_deadline(_INTERRUPTED)
        self._ticker.arm(seconds)
        try:
            instance = self._linker.instantiate(store, self._component)
        except Exception as error:
            raise self._ended(error) from error
        finally:
            self._ticker.disarm()
        self._invoke = _checked_invoke(store, instance.get_func(store, "invoke"))

    def invoke(self, method: str, payload: str, seconds: float) -> str | GuestFailure:
        """Calls the trusted application.

        Raises:
            GuestEndedError: trap, deadline or limit.
        """
        self.prepare(seconds)
        store, invoke = self._store, self._invoke
        assert store is not None
        assert invoke is not None
        store.set_epoch_deadline(_INTERRUPTED)
        self._ticker.arm(seconds)
        try:
            answer = invoke(store, method, payload)
        except Exception as error:
            raise self._ended(error) from error
        finally:
            self._ticker.disarm()
        if isinstance(answer, str):
            return answer
        return _failure(answer)

    def _ended(self, error: Exception) -> GuestEndedError:
        timed_out = self._ticker.disarm()
        store, self._store, self._invoke = self._store, None, None
        if store is not None:
            store.close()
        return GuestEndedError(_last_line(error), timed_out=timed_out)


@dataclass(frozen=True)
class _KnownType:
    """What wasmtime-py reads of a function's type."""

    params: list[tuple[str, ValType]]
    result: ValType | None


def _checked_invoke(store: Store, function: Func | None) -> Func:
    """Checks `invoke` against the WIT, once, and keeps its type: finding it again would take a third of each call."""
    known = None if function is None else function.type(store)
    parameters = [] if known is None else known.params
    result = None if known is None else known.result
    as_in_the_wit = (
        [type(parameter) for _, parameter in parameters] == [String, String]
        and isinstance(result, ResultType)
        and isinstance(result.ok, String)
        and isinstance(result.err, RecordType)
        and [(name, type(field)) for name, field in result.err.fields] == [("status", U16), ("message", String)]
    )
    if function is None or not as_in_the_wit:
        raise PackageError(
            "no-invoke",
            "the component exports no function `invoke` of the type in the WIT",
            where="Wasm",
            advice="build it against the world edgeclave:ta/trusted-app",
        )
    kept = _KnownType(parameters, result)
    function.type = lambda _store: kept  # type: ignore[method-assign, assignment, return-value]
    return function


def _failure(answer: Any) -> GuestFailure:
    return GuestFailure(answer.status, answer.message[:MAX_FAILURE_CHARACTERS])


def _last_line(error: Exception) -> str:
    """wasmtime's text is a backtrace and then the cause; a host function's message is the cause."""
    if not isinstance(error, WasmtimeError):
        return f"another type than the WIT says was passed to or from the TEE ({type(error).__name__})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:MAX_FAILURE_CHARACTERS] if lines else "trap"
