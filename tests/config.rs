//! Configuration: checked as a whole before a port opens, and in force from the start.

use serde_json::json;

use crate::support::{Program, Receiver, Setup, run};

const FILE: &str = r#"
[groups.reminders]
encode = [{ plugin = "base64-envelope" }]
limits = { concurrency = 8, ttl = "1h" }

[tenants.acme.defaults]
limits = { concurrency = 4 }
[tenants.acme.groups.invoices]
retry = { plugin = "backoff", config = { kind = "fixed", base = "1m" } }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_and_tenants_of_the_file_are_there_from_the_start() {
    let setup = Setup::new().file(FILE);
    let host = setup.start().await;
    let receiver = Receiver::start().await;
    let id = host.api.job_id("reminders", json!({"url": receiver.url("/a"), "payload_text": "hi"})).await;
    host.api.until_state(&id, "succeeded").await;
    let envelope: serde_json::Value = serde_json::from_str(receiver.arrivals("/a")[0].text()).unwrap();
    assert_eq!(envelope["payload"], "aGk=");
    let invoices = host.api.for_tenant("acme").get("/v1/groups/invoices?effective=true").await.expect(200);
    assert_eq!((&invoices["limits"]["concurrency"], &invoices["retry"]["config"]["base"]), (&json!(4), &json!("1m")));
    host.stop().await;

    let host = setup.start().await;
    assert_eq!(host.api.get("/v1/groups/reminders").await.expect(200)["version"], 1, "a restart changes nothing");
    host.stop().await;
    let host = setup.file(&FILE.replace("concurrency = 8", "concurrency = 9")).start().await;
    let changed = host.api.get("/v1/groups/reminders").await.expect(200);
    assert_eq!((&changed["version"], &changed["limits"]["concurrency"]), (&json!(2), &json!(9)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_the_file_that_makes_no_sense_stops_the_start() {
    for (text, says) in [
        ("[groups.a]\njudge = { plugin = \"nobody\" }", "nobody"),
        ("[groups.a]\nlimits = { rate = \"fast\" }", "rate"),
        ("[tenants.t.groups.a]\nsing = {}", "sing"),
    ] {
        let error = Setup::new().file(text).try_start().await.err().expect("it does not start");
        let error = format!("{error:#}");
        assert!(error.contains("groups.a") && error.contains(says), "{error}");
    }
}

/// Starts the program, which must not start.
async fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let finished = run(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat(), environment, "").await;
    finished.error(1).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_keys_are_named_with_their_source() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("my.toml");
    std::fs::write(&file, "[server]\nlistn = \"127.0.0.1:0\"\n[sever]\na = 1\n").unwrap();
    let file = file.display().to_string();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let error = refused(&["--config", &file, "--store", &store], &[]).await;
    assert!(error.contains("my.toml") && error.contains("server.listn") && error.contains("sever"), "{error}");
    let error = refused(&["--store", &store], &[("CARILLON_ENGINE__POL", "1s")]).await;
    assert!(error.contains("CARILLON_ENGINE__POL"), "{error}");
    let error = refused(&["--store", &store], &[("CARILLON_ENGINE__POLL", "soon")]).await;
    assert!(error.contains("engine.poll"), "{error}");
    assert!(!dir.path().join("x.db").exists(), "nothing is made before everything is checked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_authentication_only_loopback_is_listened_on() {
    let finished = run(&["serve", "--listen", "0.0.0.0:0", "--no-auth"], &[], "").await;
    assert!(finished.error(1).contains("loopback"), "{finished:?}");

    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let program = Program::serve(&["--no-auth", "--store", &store], &[]).await;
    let api = crate::support::Api::new(&program.base, None);
    api.put("/v1/groups/g", json!({})).await.expect(201);
    api.put("/v1/tenants/t", json!({})).await.expect(201);
}
