"""Times and periods as the API writes and reads them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from carillon.times import Period, period, read_time, when

BERLIN = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (30, "30s"),
        (1.5, "1500000us"),
        (0, "0s"),
        (0.0000001, "1us"),
        (timedelta(days=2), "172800s"),
        (timedelta(milliseconds=250), "250000us"),
        ("1h 30m", "1h 30m"),
    ],
)
def test_a_period(given: Period, text: str) -> None:
    assert period(given) == text


def test_a_time() -> None:
    assert when(datetime(2026, 7, 1, 12, 0, tzinfo=BERLIN)) == "2026-07-01T10:00:00Z"
    assert when(datetime(2026, 7, 1, 12, 0, 0, 1, tzinfo=BERLIN)) == "2026-07-01T10:00:00.000001Z"
    assert when(timedelta(seconds=90)) == "+90s"
    assert when(timedelta(seconds=-90)) == "+0s"
    assert when(1_800_000_000.5) == 1_800_000_000.5
    assert when("+2d") == "+2d"
    with pytest.raises(ValueError, match="time zone"):
        when(datetime(2026, 7, 1))


@pytest.mark.parametrize("text", ["2026-07-01T10:00:00.250Z", "2026-07-01t12:00:00.25+02:00", "2026-07-01 10:00:00.250000999z"])
def test_an_answers_time(text: str) -> None:
    assert read_time(text) == datetime(2026, 7, 1, 10, 0, 0, 250_000, tzinfo=timezone.utc)


@pytest.mark.parametrize("text", ["", "2026-07-01", "2026-07-01T10:00:00", "1800000000", "2026-13-01T10:00:00Z"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        read_time(text)
