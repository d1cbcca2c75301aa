"""Groups, changes of many of their jobs, and what administrators do."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from support import until

from carillon import Client, PolicyPlugin, Problem


def test_a_group_is_put_shown_listed_and_removed(client: Client, name: str) -> None:
    retry: PolicyPlugin = {"plugin": "backoff", "config": {"kind": "fixed", "base": "1s", "max_attempts": 3}}
    group = client.groups.put(name, retry=retry, sign=None, limits={"rate": "100/s"})
    assert (group.name, group.version, group.paused, group.retry) == (name, 1, False, retry)
    assert client.groups.get(name).limits == {"rate": "100/s"}
    effective = client.groups.get(name, effective=True)
    assert effective.judge is not None
    assert effective.sources is not None
    assert effective.sources["/limits/rate"] == "group"
    assert name in [group.name for group in client.groups.list(page_size=1)]
    client.groups.delete(name)
    with pytest.raises(Problem) as caught:
        client.groups.get(name)
    assert caught.value.status == 404


def test_what_a_put_takes_away_is_told_and_a_signature_only_if_that_is_said(client: Client, name: str) -> None:
    client.keys.put(name, "s3cret")
    sign: PolicyPlugin = {"plugin": "werkzeug-cookie", "keys": [name]}
    assert client.groups.put(name, sign=sign, dead_letters=None).added == ("sign",)
    with pytest.raises(Problem) as caught:
        client.groups.put(name, retry={"config": {"max_attempts": 2}})
    assert (caught.value.status, caught.value.pointer) == (422, "/sign")
    edited = client.groups.edit(name, retry={"config": {"max_attempts": 2}})
    assert (edited.sign, edited.removed, edited.changed) == (sign, (), ("retry",))
    proposed = client.policies.propose(name, base="active", judge={"config": {"expect": [202]}})
    assert (proposed.policy["sign"], proposed.removed, proposed.changed) == (sign, (), ("judge",))
    assert client.groups.put(name, sign=None).removed == ("sign",)


def test_a_group_has_no_unknown_fields(client: Client, name: str) -> None:
    with pytest.raises(TypeError, match="retries"):
        client.groups.put(name, retries=3)  # type: ignore[call-arg]


def test_a_paused_group_waits(client: Client, group: str) -> None:
    assert client.groups.pause(group).paused
    client.jobs.create(group)
    assert client.leases.take(group) == []
    assert not client.groups.resume(group).paused
    assert len(client.leases.take(group)) == 1


def test_a_policy_is_proposed_promoted_and_rolled_back(client: Client, name: str) -> None:
    client.groups.put(name, why="first", pin="job")
    made = client.policies.propose(name, judge={"config": {"expect": [202]}}, why="a trial")
    assert (made.version, made.active, made.why) == (2, False, "a trial")
    assert client.policies.set_shadow(name, 2, percent=50).percent == 50
    assert client.policies.shadow(name).different == {"request": 0, "judge": 0, "retry": 0}
    client.policies.delete_shadow(name)
    early = datetime(2001, 1, 1, tzinfo=timezone.utc)
    tested = client.policies.backtest(name, 2, attempted_from=early, attempted_before=early, limit=5)
    assert (tested.total_jobs, tested.uncertain) == (0, 0)
    canary = client.policies.promote(name, 2, percent=5, max_faults=0.2).canary
    assert canary is not None
    assert (canary.percent, canary.max_faults, canary.canary.attempts) == (5, 0.2, 0)
    with pytest.raises(Problem) as caught:
        client.policies.rollback(name, version=1)
    assert caught.value.status == 409
    assert client.policies.rollback(name, version=2).canary is None
    assert client.policies.promote(name, 2).binding == 2
    assert client.policies.version(name, 2) == next(iter(client.policies.versions(name, page_size=1)))
    assert client.policies.version(name, 2).plugins[0].role == "judge"
    assert client.jobs.create(name, run_at="+1h").binding == 2
    assert client.policies.rollback(name, why="no").binding == 1
    assert client.policies.unquarantine(name, why="tried").quarantined == ()
    moves = list(client.policies.history(name, page_size=1))
    assert [(move.action, move.from_version, move.to_version) for move in moves] == [
        ("unquarantine", 1, 1),
        ("rollback", 2, 1),
        ("promote", 1, 2),
        ("rollback", 2, 1),
        ("canary", 1, 2),
        ("bind", None, 1),
    ]
    with pytest.raises(TypeError, match="limits"):
        client.policies.propose(name, limits={})  # type: ignore[call-arg]


def test_plugins_are_downloaded(client: Client) -> None:
    backoff = client.plugins.get("backoff")
    assert len(client.plugins.component("backoff", backoff.version)) == backoff.size
    for verb in (client.plugins.deprecate, client.plugins.delete):
        with pytest.raises(Problem) as caught:
            verb("backoff", backoff.version, *(["old"] if verb == client.plugins.deprecate else []))
        assert caught.value.status == 409


def test_stats_are_exact(client: Client, group: str) -> None:
    client.jobs.create_many(group, [{}, {}, {"run_at": "+1h"}])
    client.leases.take(group)
    stats = client.groups.stats(group)
    assert (stats.available, stats.in_flight, stats.delayed, stats.dead) == (1, 1, 1, 0)


def test_flush_redrive_purge(client: Client, group: str) -> None:
    client.jobs.create_many(group, [{"run_at": "+1h"}, {}, {"name": "keep", "run_at": "+1h"}])
    (lease,) = client.leases.take(group)
    client.leases.fail(lease, "no", permanent=True)
    dry = client.groups.flush(group, dry_run=True)
    assert (dry.id, dry.total, dry.done) == (None, 2, 0)
    client.jobs.create(group, name="more", run_at="+1h")
    assert client.groups.flush(group, name="more").done == 1
    redriven = client.groups.redrive(group)
    assert (redriven.done, redriven.finished) == (1, True)
    assert client.groups.stats(group).available == 1
    assert client.groups.purge(group, state="cancelled").done == 1
    assert client.groups.purge(group).done == 0


def test_many_jobs_are_changed_by_filter(client: Client, group: str) -> None:
    client.jobs.create_many(group, [{"name": f"mail-{n}", "run_at": "+1h", "metadata": {"plan": "free"}} for n in range(3)])
    change = client.groups.change(group, "reschedule", run_at=timedelta(hours=2), name_prefix="mail-", metadata={"plan": "free"})
    assert (change.action, change.done) == ("reschedule", 3)
    assert change.id is not None
    until("it is over", lambda: client.groups.changed(change.id or "").finished)
    assert change.id in [change.id for change in client.groups.changes()]
    assert client.groups.change(group, "cancel", name="mail-0").done == 1
    with pytest.raises(TypeError, match="namee"):
        client.groups.change(group, "cancel", namee="mail-0")  # type: ignore[call-arg]


def test_a_simulation_sends_nothing(client: Client, group: str) -> None:
    told = client.groups.simulate(group, {"url": "http://127.0.0.1:9/", "payload": 1, "run_at": timedelta(seconds=2)}, failures=2)
    assert [attempt["decision"] for attempt in told["attempts"]] == ["scheduled", "scheduled", "succeeded"]
    assert list(client.jobs.list(group)) == []


def test_keys_keep_their_secrets(client: Client, name: str) -> None:
    client.keys.put(name, "text")
    client.keys.put(name, b"\x00bytes")
    key = client.keys.get(name)
    assert (key.name, key.kind, key.version, key.usable) == (name, "secret", 2, True)
    client.keys.put(name, "whsec_c2VjcmV0", encoded=True, overlap="1h")
    assert [version.version for version in client.keys.get(name).versions] == [3, 2]
    client.keys.delete_version(name, 2)
    assert [version.expires_at for version in client.keys.get(name).versions] == [None]
    assert client.keys.get(name).groups is None
    assert client.keys.grant(name, ["g", "h"]).groups == ("g", "h")
    assert client.keys.put(name, "new", groups=["h"], origins=["https://a:443"]) == ()
    assert client.keys.get(name).origins == ("https://a",)
    assert (client.keys.grant(name, origins=None).origins, client.keys.get(name).groups) == (None, ("h",))
    assert client.keys.get(name).groups == ("h",)
    assert client.keys.grant(name, None).groups is None
    client.keys.put(f"{name}-seed", b"s" * 32, kind="ed25519")
    (warning,) = client.keys.put(f"{name}-header", "h", kind="header")
    assert "origins" in warning
    client.keys.delete(f"{name}-header")
    assert client.keys.get(f"{name}-seed").versions[0].public_key is not None
    assert {name, f"{name}-seed"} <= {key.name for key in client.keys.list(page_size=1)}
    client.keys.delete(name)
    with pytest.raises(Problem):
        client.keys.get(name)


def test_plugins_are_listed_and_described(client: Client) -> None:
    assert {"backoff", "werkzeug-cookie"} <= {plugin.name for plugin in client.plugins.list()}
    plugin = client.plugins.get("backoff")
    assert plugin.builtin
    assert plugin.config_schema is not None
    assert client.plugins.get("backoff", plugin.version).digest == plugin.digest
    assert [(version.version, version.state) for version in client.plugins.versions("backoff")] == [(plugin.version, "validated")]
    with pytest.raises(Problem) as caught:
        client.plugins.upload("mine", "0.1.0", b"no component")
    assert (caught.value.status, caught.value.kind) == (422, "not-a-plugin")


def test_tenants_have_groups_of_their_own(client: Client, name: str) -> None:
    client.tenants.put(name, {"limits": {"rate": "5/s"}}, quota={"concurrency": 9})
    assert client.tenants.get(name).defaults == {"limits": {"rate": "5/s"}}
    assert client.tenants.get(name).quota == {"concurrency": 9}
    assert name in [tenant.name for tenant in client.tenants.list()]
    edited = client.tenants.edit(name, quota={"weight": 2, "concurrency": None})
    assert (edited.quota, edited.removed, edited.added) == ({"weight": 2}, ("quota.concurrency",), ("quota.weight",))
    with Client(client.url, tenant=name) as theirs:
        assert list(theirs.groups.list()) == []
        theirs.groups.put("g")
        assert [group.name for group in theirs.groups.list()] == ["g"]
        who = theirs.tokens.whoami()
        assert (who.tenant, who.operator, who.quota, who.usage["groups"]) == (name, True, {"weight": 2}, 1)
    assert client.tenants.suspend(name).suspended is True
    assert client.tenants.resume(name).suspended is False
    client.tenants.delete(name)
    assert name not in [tenant.name for tenant in client.tenants.list()]
