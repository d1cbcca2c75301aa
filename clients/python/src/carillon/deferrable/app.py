"""``Deferrable``: registers functions, defers calls of them, and runs deferred calls.

A call becomes an item in a queue (``items``). A consumer pops the item, finds the function among those that are registered, and runs it.
The consumer decides about retries and errors. It pushes an item's successor *before* it completes the item, so a crash in between runs
something twice and loses nothing. An item that is not completed is popped again when its lease has expired.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import time
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol, TypeVar, Union, cast, overload

from carillon.deferrable import items, metadata, naming
from carillon.deferrable.backend import Backend, DebouncingQueue, Envelope
from carillon.deferrable.items import Item
from carillon.deferrable.metadata import MetadataProducerConsumer
from carillon.deferrable.options import Options, Seconds, Times
from carillon.deferrable.serialization import SERIALIZERS, debounce_key

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")
    R = TypeVar("R", covariant=True)

    class Deferred(Protocol[P, R]):
        """A registered function."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
            """Runs the function directly."""

        def later(self, *args: P.args, **kwargs: P.kwargs) -> None:
            """Defers a call; returns when its item, or one that debouncing keeps instead, is stored durably."""


_LOG = logging.getLogger("carillon.deferrable")


class UnknownFunction(LookupError):
    """An item names a function that is not registered."""


class Deferrable:
    """Registers functions for a backend, defers calls of them, and runs deferred calls.

    ``default_error_classes``, ``default_max_attempts``: for functions that do not set their own.
    ``serializer``: ``"pickle"`` sends arguments that JSON cannot hold, and lets this consumer run pickled items. With ``"json"``, pickled
    items go to the error queue without being unpickled.
    ``imports``: modules, and packages with all of their modules, that a consumer may import to find an item's function. Functions of other
    modules must be registered before.
    ``clock``: returns the time in Unix seconds.
    ``redis_client``: deprecated and not used, since the server debounces.

    Raises ValueError for an unknown serializer.
    """

    def __init__(
        self,
        backend: Backend,
        redis_client: Any = None,
        default_error_classes: Optional[Iterable[type[BaseException]]] = None,
        default_max_attempts: int = 5,
        *,
        serializer: str = "json",
        imports: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        if redis_client is not None:
            warnings.warn("redis_client is not used: the server debounces", DeprecationWarning, stacklevel=2)
        if serializer not in SERIALIZERS:
            raise ValueError(f"serializer is one of {', '.join(sorted(SERIALIZERS))}, not {serializer!r}")
        self.backend = backend
        self._default_errors = naming.class_names(default_error_classes)
        self._default_max_attempts = default_max_attempts
        self._serializer = SERIALIZERS[serializer]
        # A consumer that trusts pickles may read JSON as well.
        self._accepted = {"json", serializer}
        self._imports = tuple(imports)
        self._clock = clock
        self._functions: dict[str, Callable[..., Any]] = {}
        self._metadata: list[MetadataProducerConsumer] = []
        self._event_consumers: list[object] = []

    # Registration.

    @overload
    def deferrable(self, function: Callable[P, R], /) -> Deferred[P, R]: ...

    @overload
    def deferrable(
        self,
        function: None = None,
        /,
        *,
        error_classes: Optional[Iterable[type[BaseException]]] = ...,
        max_attempts: Optional[int] = ...,
        delay_seconds: Seconds = ...,
        debounce_seconds: Seconds = ...,
        debounce_always_delay: bool = ...,
        ttl_seconds: Seconds = ...,
        use_exponential_backoff: bool = ...,
    ) -> Callable[[Callable[P, R]], Deferred[P, R]]: ...

    def deferrable(
        self,
        function: Optional[Callable[..., Any]] = None,
        /,
        *,
        error_classes: Optional[Iterable[type[BaseException]]] = None,
        max_attempts: Optional[int] = None,
        delay_seconds: Seconds = 0,
        debounce_seconds: Seconds = 0,
        debounce_always_delay: bool = False,
        ttl_seconds: Seconds = 0,
        use_exponential_backoff: bool = True,
    ) -> Any:
        """Decorates a top-level function of a module with ``.later(*args, **kwargs)``. The decorator works with and without arguments.

        ``error_classes``: errors after which the item is tried again. Other errors send it to the error queue.
        ``max_attempts``: attempts in all; an error of the last one sends the item to the error queue.
        ``use_exponential_backoff``: whether retries wait 4, 6, 10, 18, … at most 900 seconds.
        ``delay_seconds``: time from the call until the function may run.
        ``ttl_seconds``: time from the call until the item expires.
        ``debounce_seconds``: window in which at most one of equal calls runs. The first call runs at once, or with
        ``debounce_always_delay`` at the end of the window; a later one runs at the end of the window, and stands for all others in it.

        Durations are seconds, or functions that return them and are called for each call.

        Raises ValueError for contradictory options and for a function that is not at the top level of a module, and TypeError for an
        argument that is not a function or not an error class.
        """
        options = Options(
            error_classes=self._default_errors if error_classes is None else naming.class_names(error_classes),
            max_attempts=self._default_max_attempts if max_attempts is None else max_attempts,
            delay_seconds=delay_seconds,
            debounce_seconds=debounce_seconds,
            debounce_always_delay=debounce_always_delay,
            ttl_seconds=ttl_seconds,
            use_exponential_backoff=use_exponential_backoff,
        )
        options.check(can_debounce=isinstance(self.backend.queue, DebouncingQueue))
        return (lambda later: self._register(later, options)) if function is None else self._register(function, options)

    def register_metadata_producer_consumer(self, metadata_producer_consumer: MetadataProducerConsumer) -> None:
        """Registers an object that produces metadata for each call, and consumes them with each item.

        Raises ValueError if its namespace is missing or already registered.
        """
        namespace = metadata.namespace_of(metadata_producer_consumer)
        if any(metadata.namespace_of(each) == namespace for each in self._metadata):
            raise ValueError(f"the NAMESPACE {namespace!r} is registered already")
        self._metadata.append(metadata_producer_consumer)

    def clear_metadata_producer_consumers(self) -> None:
        """Removes all metadata producers and consumers."""
        self._metadata.clear()

    def register_event_consumer(self, event_consumer: object) -> None:
        """Registers an object whose methods ``on_EVENT(item)`` are called after the event. Each method is optional.

        Events: ``push``, ``pop``, ``empty`` (its item is None), ``complete``, ``expire``, ``retry``, ``error``, ``debounce_hit``,
        ``debounce_miss``, ``debounce_error``. Consumers are called in the order of registration; their errors are not caught.
        """
        self._event_consumers.append(event_consumer)

    def clear_event_consumers(self) -> None:
        """Removes all event consumers."""
        self._event_consumers.clear()

    # Producer.

    def _register(self, function: Callable[..., R], options: Options) -> Any:
        naming.check_function(function)
        name = naming.name_of(function)
        self._functions[name] = function
        registered = cast(Any, function)
        try:
            signature: Optional[inspect.Signature] = inspect.signature(function)
        except ValueError:
            # Some functions that are written in C have no signature.
            signature = None

        def later(*args: Any, **kwargs: Any) -> None:
            # A call with wrong arguments raises TypeError in the producer, and not in the consumer.
            if signature is not None:
                signature.bind(*args, **kwargs)
            self._later(name, options, args, kwargs)

        registered.later = later
        return registered

    def _later(self, method: str, options: Options, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        times = options.times()
        item = self._new_item(method, options, times, args, kwargs)
        if not times.debounce:
            self.backend.queue.push(item)
        elif not self._push_debounced(item, times.debounce, options.debounce_always_delay):
            return
        self._emit("push", item)

    def _new_item(self, method: str, options: Options, times: Times, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Item:
        now, encode = self._clock(), self._serializer.encode
        delay = max(times.delay, 0)
        item = {
            "method": method,
            "serializer": self._serializer.name,
            "args": encode(args, "args"),
            "kwargs": encode(sorted(kwargs.items()), "kwargs"),
            "group": self.backend.group,
            "error_classes": options.error_classes,
            "attempts": 0,
            "max_attempts": options.max_attempts,
            "first_push_time": now,
            "last_push_time": now,
            "original_delay_seconds": times.delay,
            "original_debounce_seconds": times.debounce,
            "original_debounce_always_delay": options.debounce_always_delay,
            "use_exponential_backoff": options.use_exponential_backoff,
            "delay": delay,
            "original_delay": delay,
        }
        if times.ttl:
            item.update(ttl_seconds=times.ttl, item_queued_timestamp=now)
        if self._metadata:
            item["metadata"] = metadata.produce(self._metadata, self._serializer)
        return item

    def _push_debounced(self, item: Item, window: float, always_delay: bool) -> bool:
        """Pushes an item; returns False if a waiting item stands for it."""
        key = debounce_key(item["method"], item["args"], item["kwargs"])
        try:
            queue = cast(DebouncingQueue, self.backend.queue)
            delay = queue.push_debounced(item, key=key, seconds=max(window, 0), always_delay=always_delay)
        except Exception:
            _LOG.exception("%s could not be debounced; it is pushed without a delay", item["method"])
            self._emit("debounce_error", item)
            self.backend.queue.push(item)
            return True
        if delay is None:
            self._emit("debounce_hit", item)
            return False
        item.update(delay=delay, original_delay=delay)
        self._emit("debounce_miss", item)
        return True

    # Consumer.

    def run_once(self) -> None:
        """Pops an item and processes it, if there is one.

        The item's lease is not renewed meanwhile; ``carillon worker`` renews it, for functions that take longer.
        """
        envelope, item = self.backend.queue.pop()
        self.process(envelope, item)

    def process(self, envelope: Optional[Envelope], item: Any) -> None:
        """Runs an item's function, and completes the item. After an error, it pushes a retry or an item of the error queue before.

        Raises the errors of metadata and event consumers, and KeyboardInterrupt and SystemExit of a function unless they are among its
        error classes. The item is then popped again when its lease has expired.
        """
        if envelope is None:
            self._emit("empty", None)
            return
        self._emit("pop", item)
        try:
            items.check(item)
            self._check_serializer(item)
        except items.BadItem as error:
            self._complete(envelope, self._push_error(item, error))
            return
        metadata.consume(self._metadata, SERIALIZERS[item["serializer"]], item)
        if items.is_expired(item, self._clock()):
            self._emit("expire", item)
        else:
            item = self._run(item)
        self._complete(envelope, item)

    def _run(self, item: Item) -> Item:
        """Runs the function; returns the item, or its successor."""
        try:
            self._call(item)
        except BaseException as error:
            if naming.is_among(error, item.get("error_classes") or ()):
                return self._push_error(item, error) if items.is_last_attempt(item) else self._push_retry(item, error)
            if isinstance(error, Exception):
                return self._push_error(item, error)
            raise
        return item

    def _call(self, item: Item) -> None:
        function = self._function(item["method"])
        decode = SERIALIZERS[item["serializer"]].decode
        function(*decode(item["args"]), **dict(decode(item["kwargs"])))

    def _function(self, name: str) -> Callable[..., Any]:
        """Returns the registered function of that name.

        Raises UnknownFunction, and the errors of an allowed import.
        """
        module = name.partition(":")[0]
        if name not in self._functions and naming.is_below(module, self._imports):
            importlib.import_module(module)
        function = self._functions.get(name)
        if function is None:
            raise UnknownFunction(
                f"{name} is not registered here: its module must be imported first,"
                " by the program, by `carillon worker --import`, or because Deferrable's `imports` name it"
            )
        return function

    def _check_serializer(self, item: Item) -> None:
        name = item.get("serializer")
        if name not in self._accepted:
            hint = "; this consumer was not given serializer='pickle' and does not unpickle it" if name == "pickle" else ""
            raise items.BadItem(f"the item is serialized as {name!r}{hint}")

    def _push_retry(self, item: Item, error: BaseException) -> Item:
        again = items.retried(item, self._clock())
        wait = again.get("delay", 0)
        _LOG.info("%s failed and is tried again in %s s: %r", item["method"], wait, error)
        self.backend.queue.push(again)
        self._emit("retry", again)
        return again

    def _push_error(self, item: Any, error: BaseException) -> Item:
        done = items.failed(item, error, self._clock())
        _LOG.warning("%s failed and goes to the error queue: %r", done.get("method", "an item"), error)
        self.backend.error_queue.push(done)
        self._emit("error", done)
        return done

    def _complete(self, envelope: Envelope, item: Item) -> None:
        if self.backend.queue.complete(envelope):
            self._emit("complete", item)
        else:
            _LOG.warning("the lease of an item had ended before it was completed: it comes again (%s)", item.get("method"))

    def _emit(self, event: str, item: Any) -> None:
        for consumer in self._event_consumers:
            handler: Union[Callable[[Any], Any], None] = getattr(consumer, f"on_{event}", None)
            if handler is not None:
                handler(item)
