"""Schedules."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from support import Receiver, until

from carillon import Client, Problem


def test_a_schedule_is_put_shown_and_removed(client: Client, group: str, name: str) -> None:
    start = datetime(2030, 3, 29, tzinfo=timezone.utc)
    schedule = client.schedules.put(
        name,
        group=group,
        cron="30 2 * * *",
        time_zone="Europe/Berlin",
        start=start,
        end=start + timedelta(days=365),
        max_runs=7,
        jitter=timedelta(0),
        overlap="queue",
        catch_up=90,
        catch_up_all=True,
        job={"payload": {"kind": "daily"}, "limits": {"ttl": timedelta(hours=1)}},
    )
    assert (schedule.time_zone, schedule.overlap, schedule.runs, schedule.max_runs) == ("Europe/Berlin", "queue", 0, 7)
    assert (schedule.catch_up, schedule.catch_up_all, schedule.jitter) == ("1m 30s", True, "0s")
    assert schedule.start == start
    assert schedule.next_runs[0] == datetime(2030, 3, 29, 1, 30, tzinfo=timezone.utc)
    assert schedule.next_runs_local[0] == "2030-03-29T02:30:00+01:00"
    assert len(schedule.next_runs) == 7
    assert (schedule.runs_left, schedule.skipped, schedule.last_skip) == (7, 0, None)
    assert schedule.job == {"payload": {"kind": "daily"}, "limits": {"ttl": "3600s"}}
    assert client.schedules.get(name) == schedule
    assert name in [schedule.name for schedule in client.schedules.list(page_size=1)]
    assert client.schedules.pause(name).paused
    assert not client.schedules.resume(name).paused
    client.schedules.delete(name)
    with pytest.raises(Problem) as caught:
        client.schedules.get(name)
    assert caught.value.status == 404


def test_a_schedule_makes_jobs(client: Client, group: str, name: str, receiver: Receiver) -> None:
    job = {"url": receiver.url("/tick")}
    client.schedules.put(name, group=group, cron="@every 1s", job={"url": job["url"]})
    (arrival,) = receiver.arrived("/tick")[:1]
    assert arrival.headers["carillon-schedule"] == name
    client.schedules.delete(name)


def test_a_schedule_is_put_paused_and_its_history_has_the_jobs(client: Client, group: str, name: str) -> None:
    put = client.schedules.put
    assert put(name, group=group, cron="@every 1s", overlap="allow", job={}, paused=True).paused
    assert put(name, group=group, cron="@every 1s", overlap="allow", job={}).paused
    assert not put(name, group=group, cron="@every 1s", overlap="allow", job={}, paused=False).paused
    until("it has run", lambda: client.schedules.get(name).runs or None)
    client.schedules.pause(name)
    runs = list(client.schedules.history(name))
    made = [run for run in runs if run.job is not None]
    assert client.jobs.get(str(made[0].job)).name == name
    assert all(run.skipped is not None and run.count for run in runs if run.job is None)


def test_a_run_and_a_backfill(client: Client, group: str, name: str) -> None:
    client.schedules.put(name, group=group, cron="@hourly", overlap="allow", job={})
    made = client.schedules.run(name)
    assert made.metadata["schedule"] == {"name": name, "tick": made.metadata["schedule"]["tick"]}  # type: ignore[index]
    end = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    backfill = client.schedules.backfill(name, end - timedelta(hours=3), end)
    assert (backfill.ticks, backfill.created) == (4, 4)
    assert client.schedules.backfill(name, end - timedelta(hours=3), end).created == 0


def test_mistakes_are_named(client: Client, group: str, name: str) -> None:
    with pytest.raises(Problem, match="field 2") as caught:
        client.schedules.put(name, group=group, cron="0 24 * * *", job={})
    assert caught.value.pointer == "/cron"
    with pytest.raises(TypeError, match="timezone"):
        client.schedules.put(name, group=group, cron="@daily", job={}, timezone="UTC")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="urll"):
        client.schedules.put(name, group=group, cron="@daily", job={"urll": ""})  # type: ignore[typeddict-unknown-key]
