//! The command line, as the program itself, against a host.

use serde_json::{Value, json};

use crate::support::{Answer, Receiver, TestHost, cli, run};

async fn json(host: &TestHost, arguments: &[&str], stdin: &str) -> Value {
    cli(host, &[arguments, &["--json"]].concat(), stdin).await.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_and_keys_are_managed() {
    let host = TestHost::start().await;
    cli(&host, &["key", "put", "flask"], "s3cret\n").await.ok();
    assert_eq!(host.api.get("/v1/keys/flask").await.expect(200)["name"], "flask");
    let policy = "[sign]\nplugin = \"werkzeug-cookie\"\nkeys = [\"flask\"]\n";
    cli(&host, &["group", "put", "g", "--file", "-"], policy).await.ok();
    assert_eq!(host.api.get("/v1/groups/g").await.expect(200)["sign"]["keys"], json!(["flask"]));
    cli(&host, &["group", "put", "h", "--file", "-"], r#"{"limits": {"ttl": "1h"}}"#).await.ok();

    assert!(cli(&host, &["key", "list"], "").await.ok().contains("flask"));
    cli(&host, &["key", "put", "token", "--kind", "header", "--base64"], "c2VjcmV0\n").await.ok();
    assert_eq!(host.api.get("/v1/keys/token").await.expect(200)["kind"], "header");
    assert!(cli(&host, &["key", "list"], "").await.ok().contains("header"));
    cli(&host, &["key", "put", "token", "--kind", "header"], "again\n").await.ok();
    cli(&host, &["key", "put", "flask", "--overlap", "1h"], "newer\n").await.ok();
    let rotated = json(&host, &["key", "get", "flask"], "").await;
    assert_eq!((&rotated["version"], rotated["versions"].as_array().unwrap().len()), (&json!(2), 2), "{rotated}");
    cli(&host, &["key", "delete", "flask", "--version", "1"], "").await.ok();
    assert_eq!(host.api.get("/v1/keys/flask").await.expect(200)["versions"].as_array().unwrap().len(), 1);
    cli(&host, &["key", "put", "hook", "--base64", "--group", "g", "--group", "h"], "whsec_c2VjcmV0\n").await.ok();
    assert_eq!(host.api.get("/v1/keys/hook").await.expect(200)["groups"], json!(["g", "h"]));
    for (to, said, groups) in [
        (&["--group", "h"][..], "hook: granted to h", json!(["h"])),
        (&["--none"], "hook: granted to no group", json!([])),
        (&["--all"], "hook: granted to all groups", Value::Null),
    ] {
        assert!(cli(&host, &[&["key", "grant", "hook"], to].concat(), "").await.ok().contains(said));
        assert_eq!(host.api.get("/v1/keys/hook").await.expect(200)["groups"], groups);
    }
    cli(&host, &["key", "grant", "hook"], "").await.error(2);
    cli(&host, &["key", "grant", "hook", "--all", "--none"], "").await.error(2);
    let narrower = cli(&host, &["key", "grant", "flask", "--group", "h"], "").await;
    assert!(narrower.error(1).contains("the group `g` uses this key"), "{narrower:?}");
    let effective = json(&host, &["group", "get", "h", "--effective"], "").await;
    assert_eq!((&effective["limits"]["ttl"], &effective["sources"]["/limits/ttl"]), (&json!("1h"), &json!("group")));
    assert_eq!(json(&host, &["group", "list"], "").await["items"].as_array().unwrap().len(), 2);
    cli(&host, &["group", "pause", "h"], "").await.ok();
    assert_eq!(host.api.get("/v1/groups/h").await.expect(200)["paused"], true);
    cli(&host, &["group", "resume", "h"], "").await.ok();
    assert_eq!(json(&host, &["group", "stats", "h"], "").await["scheduled"], 0);
    cli(&host, &["group", "delete", "h"], "").await.ok();
    host.api.get("/v1/groups/h").await.problem(404);
    assert!(cli(&host, &["key", "delete", "flask"], "").await.error(1).contains("uses this key"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_is_proposed_promoted_and_rolled_back() {
    let host = TestHost::start().await;
    cli(&host, &["group", "put", "g", "--why", "first"], "").await.ok();
    let candidate = "[judge.config]\nexpect = [202]\n";
    let made = json(&host, &["policy", "propose", "g", "-", "--why", "trial"], candidate).await;
    assert_eq!((&made["version"], &made["why"]), (&json!(2), &json!("trial")));
    let some = ["policy", "promote", "g", "2", "--percent", "5", "--max-faults", "0.1", "--min-attempts", "9"];
    assert!(cli(&host, &some, "").await.ok().contains("5 % of the jobs"));
    assert_eq!(json(&host, &["group", "get", "g"], "").await["canary"]["min_attempts"], 9);
    cli(&host, &["policy", "rollback", "g", "--version", "1"], "").await.error(1);
    assert!(cli(&host, &["policy", "rollback", "g"], "").await.ok().contains("version 1"));
    canaries(&host).await;
    cli(&host, &["policy", "shadow", "put", "g", "2", "--percent", "50"], "").await.ok();
    assert_eq!(json(&host, &["policy", "shadow", "get", "g"], "").await["percent"], 50);
    assert!(
        cli(&host, &["policy", "shadow", "get", "g"], "")
            .await
            .ok()
            .starts_with("version 2: 0 attempts, 0 decided as before")
    );
    cli(&host, &["policy", "shadow", "delete", "g"], "").await.ok();
    cli(&host, &["policy", "shadow", "delete", "g"], "").await.error(1);
    assert!(cli(&host, &["policy", "promote", "g", "2", "--why", "good"], "").await.ok().contains("version 2"));
    assert_eq!(json(&host, &["policy", "version", "g", "2"], "").await["active"], true);
    assert!(cli(&host, &["policy", "rollback", "g"], "").await.ok().contains("version 1"));
    cli(&host, &["policy", "rollback", "g"], "").await.error(1);
    let lifted = json(&host, &["policy", "unquarantine", "g", "--why", "it is mended"], "").await;
    assert_eq!(lifted["quarantined"], json!([]));
    assert!(cli(&host, &["policy", "unquarantine", "g"], "").await.ok().contains("quarantine ended"));
    assert!(cli(&host, &["policy", "versions", "g"], "").await.ok().contains("trial"));
    let history = cli(&host, &["policy", "history", "g"], "").await;
    assert!(
        ["first", "good", "rollback", "unquarantine", "it is mended"].iter().all(|text| history.ok().contains(text)),
        "{history:?}"
    );
    let moves = json(&host, &["policy", "history", "g", "--limit", "1"], "").await;
    assert_eq!(moves["next_cursor"], "8");

    let backoff = json(&host, &["plugin", "describe", "backoff"], "").await;
    let (name, file) =
        (format!("backoff@{}", backoff["version"].as_str().unwrap()), host.dir.path().join("backoff.wasm"));
    cli(&host, &["plugin", "pull", &name, file.to_str().unwrap()], "").await.ok();
    assert_eq!(std::fs::metadata(&file).unwrap().len(), backoff["size"].as_u64().unwrap());
    cli(&host, &["plugin", "deprecate", &name, "--why", "old"], "").await.error(1);
    cli(&host, &["plugin", "delete", &name], "").await.error(1);
}

/// Version 2 of the group `g` is tried out, which nobody follows before or after.
async fn canaries(host: &TestHost) {
    let canary = async |arguments: &[&str]| cli(host, &[&["policy", "canary"], arguments].concat(), "").await;
    let begun = canary(&["g", "2", "--percent", "7", "--max-differences", "0.3", "--why", "a trial"]).await;
    assert!(begun.ok().contains("7 % of the jobs follow version 2"), "{begun:?}");
    let shown = canary(&["get", "g", "--json"]).await.json();
    assert_eq!((&shown["version"], &shown["percent"], &shown["max_differences"]), (&json!(2), &json!(7), &json!(0.3)));
    assert!(canary(&["get", "g"]).await.ok().contains("percent"));
    assert!(canary(&["delete", "g", "--why", "enough"]).await.ok().contains("g: canary ended"));
    let history = host.api.get("/v1/groups/g/policy/history").await.items();
    let moves: Vec<_> = history.iter().take(2).map(|it| (&it["action"], &it["why"], &it["to_version"])).collect();
    let (ended, began) =
        ((&json!("rollback"), &json!("enough"), &json!(1)), (&json!("canary"), &json!("a trial"), &json!(2)));
    assert_eq!(moves, [ended, began], "what is in force stays");
    for nobody in [&["get", "g"][..], &["delete", "g"]] {
        assert!(canary(nobody).await.error(1).contains("the group `g` has no canary"));
    }
    canary(&["get", "none"]).await.error(1);
    for odd in [&["g", "2"][..], &["g"], &[], &["g", "2", "--percent", "100"], &["g", "2", "--percent", "0"]] {
        canary(odd).await.error(2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_created_followed_and_cancelled() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/a", [Answer::body(200, "thanks")]);
    host.api.put_group("g", json!({})).await;
    let (url, create) = (receiver.url("/a"), ["job", "create", "g"]);
    let flags = ["-X", "put", "-H", "X-A: b", "--payload-text", "hello", "--name", "n", "-m", "k=v", "--run-at", "+0s"];
    let made = json(&host, &[&create[..], &[&url], &flags].concat(), "").await;
    let id = made["id"].as_str().unwrap();
    host.api.until_state(id, "succeeded").await;
    let arrival = &receiver.arrivals("/a")[0];
    assert_eq!((arrival.method.as_str(), arrival.text(), arrival.header("x-a")), ("PUT", "hello", Some("b")));

    assert_eq!(json(&host, &["job", "get", id], "").await["metadata"], json!({"k": "v"}));
    let attempts = json(&host, &["job", "attempts", id], "").await;
    assert_eq!(attempts["items"][0]["response_body"], "thanks");
    assert!(cli(&host, &["job", "attempts", id], "").await.ok().contains("success"));
    let table = cli(&host, &["job", "list", "g", "--state", "succeeded", "--name", "n"], "").await;
    assert!(table.ok().contains(id) && table.ok().starts_with("ID"), "{table:?}");

    let later = json(&host, &[&create[..], &[&url, "--run-at", "+1h"]].concat(), "").await;
    let later = later["id"].as_str().unwrap();
    assert!(cli(&host, &["job", "cancel", later], "").await.ok().contains("cancelled"));
    assert_eq!(host.api.job(later).await["state"], "cancelled");
    assert!(cli(&host, &["job", "cancel", id], "").await.error(1).contains("succeeded"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_read_line_by_line() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let lines: String =
        (0..25).map(|n| format!("{{\"url\": \"http://a/\", \"run_at\": \"+1h\", \"name\": \"{n}\"}}\n")).collect();
    let made = json(&host, &["job", "batch", "g", "--size", "10"], &lines).await;
    assert_eq!(made["ids"].as_array().unwrap().len(), 25, "{made}");
    assert_eq!(host.api.stats("g").await["delayed"], 25);
    let all = json(&host, &["job", "list", "g", "--all"], "").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 25);
    let failed = cli(&host, &["job", "batch", "g"], "{\"url\": \"http://a/\"}\n{\"url\": \"ftp://a/\"}\n").await;
    assert_ne!(failed.code, Some(0));
    assert!(failed.stderr.contains("/jobs/1/url"), "{failed:?}");
    assert_eq!(host.api.stats("g").await["delayed"], 25, "the bad batch left nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schedule_is_put_shown_run_and_deleted() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let doc = format!("group = \"g\"\ncron = \"0 4 1 1 *\"\njob = {{ url = \"{}\" }}\n", receiver.url("/a"));
    let put = cli(&host, &["schedule", "put", "s", "--file", "-"], &doc).await;
    assert!(put.ok().contains("s: stored, runs next: 20") && put.ok().contains("-01-01T04:00:00.000Z"), "{put:?}");
    assert_eq!(json(&host, &["schedule", "get", "s"], "").await["cron"], "0 4 1 1 *");
    let table = cli(&host, &["schedule", "list"], "").await;
    assert!(table.ok().starts_with("NAME") && table.ok().contains("NEXT RUN"), "{table:?}");
    assert_eq!(cli(&host, &["schedule", "next", "s"], "").await.ok().lines().count(), 10);
    assert_eq!(json(&host, &["schedule", "next", "s"], "").await.as_array().unwrap().len(), 10);
    let id = cli(&host, &["schedule", "run", "s"], "").await.ok().trim().to_owned();
    host.api.until_state(&id, "succeeded").await;
    cli(&host, &["schedule", "pause", "s"], "").await.ok();
    assert_eq!(host.api.get("/v1/schedules/s").await.expect(200)["paused"], true);
    cli(&host, &["schedule", "resume", "s"], "").await.ok();
    let range = ["--from", "1", "--to", "2"];
    assert!(cli(&host, &[&["schedule", "backfill", "s"], &range[..]].concat(), "").await.error(1).contains("90 days"));
    let bad = doc.replace("0 4 1 1", "0 24 1 1");
    let refused = cli(&host, &["schedule", "put", "s", "--file", "-"], &bad).await;
    assert!(refused.error(1).contains("field 2 (hour): `24` is not within 0 to 23"), "{refused:?}");
    cli(&host, &["schedule", "delete", "s"], "").await.ok();
    host.api.get("/v1/schedules/s").await.problem(404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_changed_one_by_one_and_many_at_once() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let url = receiver.url("/a");
    let create = ["job", "create", "g", &url, "--run-at", "+1h", "--name", "mail-1", "--priority", "9", "--ttl", "3h"];
    let flags = ["--dedupe-key", "k", "--idempotency-key", "once", "-m", "plan=free"];
    let made = json(&host, &[&create[..], &flags].concat(), "").await;
    assert_eq!((&made["priority"], &made["name"]), (&json!(9), &json!("mail-1")));
    assert_eq!(json(&host, &[&create[..], &flags].concat(), "").await["id"], made["id"], "the same request");
    let again = json(&host, &[&create[..], &flags[..2]].concat(), "").await;
    assert_eq!((&again["id"], &again["instead"]), (&made["id"], &json!("duplicate")));
    let by_name = ["mail-1", "--group", "g"];
    let moved = json(&host, &[&["job", "reschedule"], &by_name[..], &["--run-at", "+2h"]].concat(), "").await;
    assert_ne!(moved["run_at"], made["run_at"]);
    let edited =
        json(&host, &[&["job", "edit"], &by_name[..], &[r#"{"metadata": {"plan": "paid"}}"#]].concat(), "").await;
    assert_eq!(edited["metadata"]["plan"], "paid");
    assert!(cli(&host, &["job", "list", "g", "-m", "plan=paid"], "").await.ok().contains("mail-1"));
    assert_eq!(
        cli(&host, &["bulk", "cancel", "g", "--name-prefix", "mail", "--dry-run"], "").await.ok().trim(),
        "1 job would be cancelled"
    );
    cli(&host, &[&["job", "run"], &by_name[..]].concat(), "").await.ok();
    let id = made["id"].as_str().unwrap();
    host.api.until_state(id, "succeeded").await;
    assert!(cli(&host, &["job", "retry", id], "").await.error(1).contains("the job has already succeeded"));
    assert!(cli(&host, &["job", "copy", id, "--run-at", "+1h"], "").await.ok().contains("scheduled"));
    let everywhere = cli(&host, &["job", "list"], "").await;
    let everywhere = everywhere.ok();
    assert!(everywhere.contains(id) && everywhere.contains("GROUP"), "{everywhere}");
    cli(&host, &["job", "list", "--state", "scheduled"], "").await.ok();
    host.api.job_id("g", json!({"url": url, "run_at": "+1h"})).await;
    assert_eq!(cli(&host, &["bulk", "cancel", "g"], "").await.ok().trim(), "2 jobs cancelled");
    assert!(cli(&host, &["bulk", "list"], "").await.ok().contains("cancel"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_works_from_the_shell() {
    let host = TestHost::start().await;
    host.api.put_group("q", json!({})).await;
    for text in ["one", "two"] {
        cli(&host, &["job", "create", "q", "--payload-text", text], "").await.ok();
    }
    let taken = json(&host, &["lease", "take", "q", "--max", "5"], "").await;
    let token = |index: usize| taken["leases"][index]["token"].as_str().unwrap().to_owned();
    assert_eq!(taken["leases"][1]["payload_text"], "two");
    cli(&host, &["lease", "extend", &token(0), "--lease", "1m"], "").await.ok();
    assert_eq!(cli(&host, &["lease", "complete", &token(0)], "").await.ok().trim(), "succeeded");
    assert!(cli(&host, &["lease", "fail", &token(1), "--error", "no"], "").await.ok().starts_with("scheduled, due "));
    assert!(cli(&host, &["lease", "release", &token(1)], "").await.error(1).contains("the lease has ended"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_versions_of_a_policy_are_compared() {
    let host = TestHost::start().await;
    let diff = async |numbers: &[&str]| json(&host, &[&["policy", "diff", "g"], numbers].concat(), "").await;
    cli(&host, &["key", "put", "k"], "s3cret\n").await.ok();
    let policy = json!({"judge": {"config": {"expect": [200]}}, "limits": {"ttl": "1h"}});
    host.api.put_group("g", policy).await;
    assert!(cli(&host, &["policy", "diff", "g"], "").await.error(1).contains("g has only version 1"));
    let candidate =
        json!({"judge": {"config": {"expect": [202]}}, "sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}});
    host.api.post("/v1/groups/g/policy/versions", candidate).await.expect(201);

    // What is proposed, against what is in force.
    let compared = diff(&[]).await;
    assert_eq!((&compared["from"]["version"], &compared["to"]["version"]), (&json!(1), &json!(2)), "{compared}");
    assert_eq!((&compared["same"], &compared["from"]["active"]), (&json!(false), &json!(true)));
    let changes = compared["changes"].as_array().unwrap();
    let at = |pointer: &str| changes.iter().find(|it| it["pointer"] == pointer).unwrap_or_else(|| panic!("{compared}"));
    let expect = json!({"role": "judge", "pointer": "/judge/config/expect", "from": [200], "to": [202]});
    assert_eq!(at("/judge/config/expect"), &expect);
    assert_eq!(at("/sign/keys"), &json!({"role": "sign", "pointer": "/sign/keys", "to": ["k"]}));
    let signer = host.api.get("/v1/plugins/werkzeug-cookie").await.expect(200);
    assert_eq!((&at("/sign/digest")["to"], at("/sign/digest").get("from")), (&signer["digest"], None));
    assert!(at("/sign/plugin")["to"].as_str().unwrap().starts_with("werkzeug-cookie@"), "{compared}");
    assert_eq!(changes.len(), 4, "{compared}");
    assert_eq!(diff(&["2"]).await, compared);

    // When it is in force, against what was before; and by number, in either direction.
    cli(&host, &["policy", "promote", "g", "2"], "").await.ok();
    let promoted = diff(&[]).await;
    assert_eq!((&promoted["changes"], &promoted["to"]["active"]), (&compared["changes"], &json!(true)));
    assert_eq!(diff(&["1"]).await["from"]["version"], 2);
    assert_eq!(diff(&["2", "1"]).await["changes"][0]["from"], signer["digest"]);
    let same = diff(&["1", "1", "--exit-code"]).await;
    assert_eq!((&same["same"], &same["changes"]), (&json!(true), &json!([])));
    let told = cli(&host, &["policy", "diff", "g", "--exit-code"], "").await;
    assert!(told.code == Some(1) && told.stderr.contains("version 1 and version 2 (in force) differ"), "{told:?}");
    assert!(
        told.stdout.contains("/judge/config/expect  [200]") && told.stderr.contains("g: version 1 -> "),
        "{told:?}"
    );
    assert!(cli(&host, &["policy", "diff", "g", "7"], "").await.error(1).contains("version"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_decided_again() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let jobs = vec![json!({"url": receiver.url("/a"), "payload": {"a": 1}}); 101];
    let made = host.api.post("/v1/groups/g/jobs/batch", json!({"jobs": jobs})).await.expect(201);
    for id in made["ids"].as_array().unwrap() {
        host.api.until_state(id.as_str().unwrap(), "succeeded").await;
    }
    let id = made["ids"][0].as_str().unwrap();
    let candidate = json!({"encode": [{"plugin": "base64-envelope"}], "judge": {"config": {"expect": [202]}}});
    host.api.post("/v1/groups/g/policy/versions", candidate).await.expect(201);

    // All pages of it are one answer.
    let tested = json(&host, &["policy", "backtest", "g", "2"], "").await;
    assert_eq!((&tested["jobs"], &tested["attempts"], &tested["same"]), (&json!(101), &json!(101), &json!(0)));
    assert_eq!(tested["different"], json!({"request": 101, "judge": 101, "retry": 101}));
    assert_eq!((&tested["uncertain"], &tested["faults"], &tested["skipped"]), (&json!(0), &json!({}), &json!([])));
    let differences = tested["differences"].as_array().unwrap();
    assert_eq!((differences.len(), &differences[0]["request"]["body"]["said_length"]), (101, &json!(7)));
    assert_eq!(json(&host, &["policy", "backtest", "g", "1"], "").await["same"], 101);
    let early = ["--created-before", "2001-01-01T00:00:00Z"];
    assert_eq!(json(&host, &[&["policy", "backtest", "g", "2"], &early[..]].concat(), "").await["jobs"], 0);
    for (range, attempts) in [("--attempted-before", 0), ("--attempted-from", 101)] {
        let arguments = ["policy", "backtest", "g", "2", range, "2001-01-01T00:00:00Z"];
        assert_eq!(json(&host, &arguments, "").await["attempts"], attempts, "{range}");
    }
    let people = cli(&host, &["policy", "backtest", "g", "2"], "").await;
    let lines: Vec<_> = people.ok().lines().collect();
    assert_eq!(lines[0], "version 2: 101 attempts of 101 jobs, 0 decided as before");
    assert_eq!(lines[1], "different in: judge 101, request 101, retry 101");
    let heading = lines.iter().position(|line| line.starts_with("JOB")).unwrap();
    assert_eq!(lines.len() - heading, 102, "one line for each");
    assert!(lines[heading + 1].contains("success, done: ") && lines[heading + 1].contains("retryable, retry after"));
    let odd = cli(&host, &["policy", "backtest", "g", "2", "--attempted-from", "soon"], "").await;
    assert!(odd.error(1).contains("attempted_from"), "{odd:?}");
    cli(&host, &["policy", "backtest", "g", "9"], "").await.error(1);

    let replayed = json(&host, &["policy", "replay", id, "1"], "").await;
    assert_eq!((&replayed["version"], &replayed["same"], &replayed["caveats"]), (&json!(1), &json!(true), &json!([])));
    let other = json(&host, &["policy", "replay", id, "1", "--version", "2"], "").await;
    assert_eq!((&other["same"], &other["different"]), (&json!(false), &json!("request, judge, retry")));
    let whose = |it: &Value| it["job"] == id;
    assert_eq!(other["request"], differences.iter().find(|it| whose(it)).unwrap()["request"]);
    assert!(cli(&host, &["policy", "replay", id, "1"], "").await.ok().contains("request_digest"));
    assert!(cli(&host, &["policy", "replay", id, "2"], "").await.error(1).contains("there is no attempt `2`"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulation_is_printed() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({"encode": [{"plugin": "base64-envelope"}]})).await;
    let arguments =
        ["policy", "simulate", "g", "http://example.com/a", "-d", "{\"a\":1}", "--failures", "3", "--seed", "7"];
    let text = cli(&host, &arguments, "").await;
    assert!(text.ok().contains("POST") && text.ok().contains("tries"), "{text:?}");
    let outcome = json(&host, &arguments, "").await;
    assert_eq!((outcome["attempts"].as_array().unwrap().len(), &outcome["seed"]), (4, &json!(7)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_are_listed_and_described() {
    let host = TestHost::start().await;
    let table = cli(&host, &["plugin", "list"], "").await;
    for name in ["backoff", "base64-envelope", "expected-status", "hmac", "standard-webhooks", "werkzeug-cookie"] {
        assert!(table.ok().contains(name), "{table:?}");
    }
    let versions = cli(&host, &["plugin", "versions", "backoff"], "").await;
    assert!(versions.ok().contains("validated"), "{versions:?}");
    let described = json(&host, &["plugin", "describe", "backoff"], "").await;
    assert_eq!(described["roles"], json!(["retry"]));
    assert!(described["config_schema"]["properties"]["max_attempts"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_one_line_and_an_exit_code() {
    let host = TestHost::start().await;
    for (arguments, code, says) in [
        (&["group", "get", "none"][..], 1, "there is no group `none`"),
        (&["plugin", "describe", "none"], 1, "there is no plugin `none`"),
        (&["job", "create", "none", "http://a/"], 1, "there is no group `none`"),
        (&["job", "create"], 2, "Usage"),
        (&["job", "list", "g", "--state", "asleep"], 2, "asleep"),
        (&["nonsense"], 2, "nonsense"),
    ] {
        let finished = cli(&host, arguments, "").await;
        assert!(finished.error(code).contains(says), "{finished:?}");
        assert!(code == 2 || finished.stderr.lines().count() == 1, "{finished:?}");
    }
    let wrong = run(&["group", "list"], &[("CARILLON_SERVER", &host.base), ("CARILLON_TOKEN", "wrong")], "").await;
    assert!(wrong.error(1).contains("token"), "{wrong:?}");
    let nobody = run(&["group", "list", "--server", "http://127.0.0.1:1"], &[], "").await;
    assert!(nobody.error(1).contains("no server responds"), "{nobody:?}");
}
