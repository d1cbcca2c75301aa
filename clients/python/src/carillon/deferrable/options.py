"""Options of a deferrable function, and the durations that they give for one call."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from carillon.deferrable.items import check_times

#: A number of seconds, or a function that returns it and is called once for each ``.later()``. None means 0.
Seconds = Union[float, None, Callable[[], Optional[float]]]


@dataclass(frozen=True)
class Options:
    """Options of a function."""

    #: Names of error classes.
    error_classes: list[str]
    max_attempts: int
    delay_seconds: Seconds
    debounce_seconds: Seconds
    debounce_always_delay: bool
    ttl_seconds: Seconds
    use_exponential_backoff: bool

    def check(self, *, can_debounce: bool) -> None:
        """Raises ValueError for contradictory options, and for debouncing if the queue does not support it."""
        if self.delay_seconds and self.debounce_seconds:
            raise ValueError("delay_seconds and debounce_seconds cannot go together: debouncing delays as it needs")
        if self.debounce_always_delay and not self.debounce_seconds:
            raise ValueError("debounce_always_delay needs debounce_seconds")
        if self.debounce_seconds and not can_debounce:
            raise ValueError("debounce_seconds needs a queue with `push_debounced`, such as carillon's own")

    def times(self) -> Times:
        """Returns the durations of one call.

        Raises TypeError for a value that is not a number, and ValueError for a duration that is too long.
        """
        times = Times(
            delay=_seconds(self.delay_seconds, "delay_seconds"),
            debounce=_seconds(self.debounce_seconds, "debounce_seconds"),
            ttl=_seconds(self.ttl_seconds, "ttl_seconds"),
        )
        check_times(times.delay, times.debounce, times.ttl)
        return times


@dataclass(frozen=True)
class Times:
    """Durations of one call, in seconds; 0 means none."""

    delay: float
    debounce: float
    ttl: float


def _seconds(given: Seconds, what: str) -> float:
    value: Any = given() if callable(given) else given
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number of seconds, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{what} is a finite number of seconds, not {value!r}")
    return value
