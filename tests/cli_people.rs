//! What the command line prints for people: the sentence that says why, faults that are not hidden, tenants, and lists of nothing.

use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Answer, Finished, Receiver, TestHost, run};

async fn cli(host: &TestHost, arguments: &[&str], stdin: &str) -> Finished {
    run(arguments, &[("CARILLON_SERVER", &host.base), ("CARILLON_TOKEN", ADMIN_TOKEN)], stdin).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_without_a_key_is_warned_about_and_its_fault_is_printed() {
    let host = TestHost::start().await;
    let put = cli(&host, &["group", "put", "nokeys", "-f", "-"], "sign = { plugin = \"werkzeug-cookie\" }\n").await;
    assert_eq!(put.ok(), "nokeys: stored (added: sign)\n");
    assert!(put.stderr.contains("warning: sign: `werkzeug-cookie@") && put.stderr.contains("`sign.keys`"), "{put:?}");
    let warned = host.api.get("/v1/groups/nokeys").await.expect(200);
    assert_eq!(warned["warnings"].as_array().unwrap().len(), 1);

    let job = ["policy", "simulate", "nokeys", "http://127.0.0.1:1/bell", "--payload", "{\"user\":7}"];
    let simulated = cli(&host, &job, "").await;
    assert_eq!(simulated.code, Some(1), "{simulated:?}");
    assert!(simulated.stdout.contains("nothing would be sent"), "{simulated:?}");
    assert!(simulated.stderr.contains("policy.declared: sign: no-key"), "{simulated:?}");
    let as_json = cli(&host, &[&job[..], &["--json"]].concat(), "").await;
    assert!(as_json.code == Some(1) && serde_json::from_str::<Value>(&as_json.stdout).is_ok(), "{as_json:?}");

    host.api.put("/v1/keys/k", json!({"secret": "s"})).await.expect(204);
    let put = cli(&host, &["group", "put", "nokeys", "-f", "-"], r#"{"sign": {"keys": ["k"]}}"#).await;
    assert!(put.ok().contains("changed: sign") && put.stderr.is_empty(), "{put:?}");
    let simulated = cli(&host, &job, "").await;
    let table = simulated.ok().lines().find(|line| line.starts_with("ATTEMPT")).unwrap_or_default().to_owned();
    assert!(["AFTER", "VERDICT", "THEN", "WHY"].iter().all(|heading| table.contains(heading)), "{simulated:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_an_attempt_failed_is_in_the_table_and_everything_in_the_attempt() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/a", [Answer::body(400, "bad field x")]);
    host.api.put_group("g", json!({"judge": {"config": {"expect": [200], "permanent": ["4xx"]}}})).await;
    let id = host.api.job_id("g", json!({"url": receiver.url("/a")})).await;
    let waited = cli(&host, &["job", "wait", &id, "--timeout", "60s"], "").await;
    assert!(waited.code == Some(1) && waited.stderr.contains("the job is dead"), "{waited:?}");
    assert!(waited.stdout.starts_with("id "), "the id comes first: {waited:?}");
    let attempts = cli(&host, &["job", "attempts", &id], "").await;
    let judged = host.api.attempts(&id).await[0]["verdict"]["reason"].as_str().unwrap().to_owned();
    assert!(attempts.ok().contains(&judged), "{attempts:?}");
    let one = cli(&host, &["job", "attempt", &id, "1"], "").await;
    assert!(one.ok().contains("bad field x") && one.ok().contains("plugins"), "{one:?}");
    assert!(cli(&host, &["job", "attempt", &id, "2"], "").await.error(1).contains("no attempt 2"));

    let refused = host.api.job_id("g", json!({"url": "http://10.0.0.1/"})).await;
    host.api.until(&refused, "has an attempt", |job| job["last_error"].is_string()).await;
    let attempts = cli(&host, &["job", "attempts", &refused], "").await;
    assert!(attempts.ok().contains("10.0.0.1") && attempts.ok().contains("egress.allow"), "{attempts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_works_for_another_tenant() {
    let host = TestHost::start().await;
    cli(&host, &["tenant", "put", "acme", "--concurrency", "3"], "").await.ok();
    let who = cli(&host, &["whoami", "--tenant", "acme", "--json"], "").await.json();
    assert_eq!(
        (&who["tenant"], &who["operator"], &who["quota"]),
        (&json!("acme"), &json!(true), &json!({"concurrency": 3}))
    );
    let made =
        cli(&host, &["token", "create", "ci", "--role", "viewer", "--tenant", "acme", "--json"], "").await.json();
    assert_eq!(made["tenant"], "acme");
    let listed = cli(&host, &["--tenant", "acme", "token", "list"], "").await;
    assert!(listed.ok().contains("ci"), "{listed:?}");
    assert!(!cli(&host, &["token", "list"], "").await.ok().contains("ci"));
    cli(&host, &["group", "put", "theirs", "--tenant", "acme"], "").await.ok();
    assert_eq!(host.api.for_tenant("acme").get("/v1/groups").await.items().len(), 1);
    let theirs = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", made["token"].as_str().unwrap())];
    let who = run(&["whoami", "--json"], &theirs, "").await.json();
    assert_eq!((&who["role"], &who["operator"], &who["token"]), (&json!("viewer"), &json!(false), &json!("ci")));
    run(&["whoami", "--tenant", "default"], &theirs, "").await.error(1);

    let id = made["id"].as_str().unwrap();
    cli(&host, &["token", "revoke", id], "").await.error(1);
    cli(&host, &["tenant", "delete", "acme"], "").await.ok();
    run(&["whoami"], &theirs, "").await.error(1);
    assert!(cli(&host, &["tenant", "get", "acme"], "").await.error(1).contains("acme"));
    assert!(cli(&host, &["tenant", "delete", "default"], "").await.error(1).contains("cannot be deleted"));
    cli(&host, &["tenant", "put", "acme"], "").await.ok();
    assert!(host.api.for_tenant("acme").get("/v1/tokens").await.items().is_empty(), "another tenant of the same name");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_nothing_says_so() {
    let host = TestHost::start().await;
    cli(&host, &["group", "put", "g"], "").await.ok();
    assert_eq!(cli(&host, &["job", "list", "g"], "").await.ok(), "no jobs\n");
    assert_eq!(cli(&host, &["schedule", "list"], "").await.ok(), "no schedules\n");
    let later = ["job", "list", "g", "--created-from", "2001-01-01T00:00:00Z", "--json"];
    assert_eq!(cli(&host, &later, "").await.json(), json!({"items": [], "next_cursor": null}));
    host.api.job_id("g", json!({"url": "http://a/", "run_at": "+1h"})).await;
    assert_eq!(cli(&host, &later, "").await.json()["items"].as_array().unwrap().len(), 1);
    let early = ["job", "list", "g", "--created-before", "2001-01-01T00:00:00Z"];
    assert_eq!(cli(&host, &early, "").await.ok(), "no jobs\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_made_or_taken_in_the_form_of_openssl() {
    let host = TestHost::start().await;
    let made = cli(&host, &["key", "put", "a", "--generate"], "").await;
    assert_eq!(made.ok().trim().len(), 43, "{made:?}");
    cli(&host, &["key", "put", "b", "--generate", "--kind", "ed25519"], "").await.ok();
    assert!(host.api.get("/v1/keys/b").await.expect(200)["versions"][0]["public_key"].is_string());
    // The example of RFC 8410, section 10.3, and the public key of section 10.1.
    let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    cli(&host, &["key", "put", "c", "--kind", "ed25519"], pem).await.ok();
    let public = &host.api.get("/v1/keys/c").await.expect(200)["versions"][0]["public_key"];
    assert_eq!(public, "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
    let wrong = pem.replace("MC4C", "MC4D");
    assert!(cli(&host, &["key", "put", "c", "--kind", "ed25519"], &wrong).await.error(1).contains("openssl genpkey"));
    cli(&host, &["key", "put", "d", "--group", "x", "--group", "y"], "s").await.ok();
    let narrower = cli(&host, &["key", "put", "d", "--group", "y"], "t").await;
    assert_eq!(narrower.ok(), "d: stored (no longer granted to x)\n");
}
