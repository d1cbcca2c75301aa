//! The master key is changed: with stopped servers in one transaction, and on a cluster without a stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{DATABASE, Finished, MASTER_KEY, Receiver, Setup, TestHost, cluster, run};

/// The key that is rotated to.
const NEW_KEY: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff00";

/// Number of keys in the store whose rotation is killed.
const MANY: usize = 150;

/// Writes the present and the new key into files.
fn files(directory: &Path) -> (PathBuf, PathBuf) {
    let (old, new) = (directory.join("old.key"), directory.join("new.key"));
    std::fs::write(&old, MASTER_KEY).unwrap();
    std::fs::write(&new, format!("{NEW_KEY}\n")).unwrap();
    (old, new)
}

async fn rotate(store: &str, old: &Path, new: &Path, more: &[&str]) -> Finished {
    let (old, new) = (old.display().to_string(), new.display().to_string());
    let fixed = ["keys", "rotate-master", "--store", store, "--old-file", &old, "--new-file", &new];
    run(&[&fixed[..], more].concat(), &[], "").await
}

fn store_of(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("carillon.db").display())
}

fn under(setup: Setup, key: &Path, old: Option<&Path>) -> Setup {
    let setup = setup.set("keys.master_key", "").set("keys.master_key_file", &key.display().to_string());
    match old {
        Some(old) => setup.set("keys.old_master_key_file", &old.display().to_string()),
        None => setup,
    }
}

/// Asserts that a server can use a key with an older version, and read an encrypted payload.
async fn assert_usable(host: &TestHost, job: &str) {
    let key = host.api.get("/v1/keys/k").await.expect(200);
    assert_eq!((&key["usable"], &key["version"]), (&json!(true), &json!(2)), "{key}");
    let versions = key["versions"].as_array().unwrap();
    assert!(versions.len() == 2 && versions.iter().all(|version| version["usable"] != false), "{key}");
    assert_eq!(host.api.get(&format!("/v1/jobs/{job}/payload")).await.json(), json!({"a": 1}));
}

/// Makes a key with two versions, and a job that waits.
async fn fill(host: &TestHost, receiver: &Receiver) -> String {
    host.api.put("/v1/keys/k", json!({"secret": "one"})).await.expect(204);
    host.api.put("/v1/keys/k", json!({"secret": "two", "overlap": "until-removed"})).await.expect(204);
    host.api.put_group("g", json!({"sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}})).await;
    host.api.job_id("g", json!({"url": receiver.url("/a"), "run_at": "+1h", "payload": {"a": 1}})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_server_gets_another_master_key_and_loses_nothing() {
    let (setup, receiver) = (Setup::new().set("store.encrypt", "true"), Receiver::start().await);
    let host = setup.start().await;
    let dir = Arc::clone(&host.dir);
    let (old, new) = files(dir.path());
    let store = store_of(dir.path());
    let job = fill(&host, &receiver).await;
    let busy = rotate(&store, &old, &new, &[]).await;
    assert!(busy.error(1).contains("another process uses"), "{busy:?}");
    host.stop().await;

    let (wrong, missing) = (dir.path().join("wrong.key"), dir.path().join("missing.key"));
    std::fs::write(&wrong, "ab".repeat(32)).unwrap();
    for (old, new, expected) in [
        (&wrong, &missing, "--new-file `"),
        (&missing, &new, "--old-file `"),
        (&wrong, &new, "--old-file `"),
        (&old, &old, "holds the same key as --old-file"),
    ] {
        let refused = rotate(&store, old, new, &[]).await;
        assert!(refused.error(1).contains(expected), "{refused:?}");
    }
    let setup = setup.in_dir(&dir);
    let host = setup.start().await;
    assert_usable(&host, &job).await;
    host.stop().await;

    let rotated = rotate(&store, &old, &new, &["--json"]).await.json();
    assert_eq!((&rotated["rotated"], &rotated["current"], &rotated["unusable"]), (&json!(3), &json!(0), &json!(0)));
    let again = rotate(&store, &old, &new, &["--json"]).await.json();
    assert_eq!((&again["rotated"], &again["current"]), (&json!(0), &json!(3)), "it can be run again");
    let error = format!("{:#}", setup.try_start().await.err().expect("the old key is refused"));
    assert!(error.contains("keys.master_key is not the master key"), "{error}");
    let host = under(setup, &new, None).start().await;
    assert_usable(&host, &job).await;
    host.api.post(&format!("/v1/jobs/{job}/run"), json!({})).await.ok();
    host.api.until_state(&job, "succeeded").await;
}

/// Returns the numbers of `carillon keys status`.
async fn status(store: &str, key: &Path, old: Option<&Path>) -> Value {
    let (key, old) = (key.display().to_string(), old.map(|old| old.display().to_string()).unwrap_or_default());
    let environment = [
        ("CARILLON_STORE__URL", store),
        ("CARILLON_KEYS__MASTER_KEY_FILE", key.as_str()),
        ("CARILLON_KEYS__OLD_MASTER_KEY_FILE", old.as_str()),
    ];
    run(&["keys", "status", "--json"], &environment, "").await.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_rotation_leaves_one_of_the_keys_and_never_a_mixture() {
    let host = Setup::new().start().await;
    let dir = Arc::clone(&host.dir);
    let (mut old, mut new) = files(dir.path());
    let store = store_of(dir.path());
    for number in 0..MANY {
        host.api.put(&format!("/v1/keys/k{number}"), json!({"secret": format!("s{number}")})).await.expect(204);
    }
    host.stop().await;
    for delay in 0..24 {
        let arguments = ["keys", "rotate-master", "--store", &store, "--old-file"];
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_carillon"));
        command.args(arguments).arg(&old).arg("--new-file").arg(&new).env_clear().kill_on_drop(true);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = command.spawn().unwrap();
        let ended = tokio::time::timeout(Duration::from_millis(4 * delay), child.wait()).await;
        if ended.is_err() {
            child.kill().await.unwrap();
        }
        // Exactly one of the keys opens the store, and it opens every value.
        let counts = status(&store, &old, Some(&new)).await;
        let (before, after) = (counts["current"].as_u64().unwrap(), counts["old"].as_u64().unwrap());
        assert_eq!((before + after, before * after, &counts["unusable"]), (MANY as u64, 0, &json!(0)), "{counts}");
        let in_force = if before > 0 { &old } else { &new };
        assert_eq!(status(&store, in_force, None).await["current"], MANY);
        if after > 0 {
            std::mem::swap(&mut old, &mut new);
        }
    }
    rotate(&store, &old, &new, &[]).await.ok();
    let host = under(Setup::new().in_dir(&dir), &new, None).start().await;
    for number in 0..MANY {
        assert_eq!(host.api.get(&format!("/v1/keys/k{number}")).await.expect(200)["usable"], true);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_changes_its_master_key_without_a_stop() {
    let (cluster, receiver) = (cluster(), Receiver::start().await);
    let url = cluster.url(DATABASE);
    let setup = || Setup::new().set("store.url", &url).set("store.encrypt", "true");
    let files_at = tempfile::tempdir().unwrap();
    let (old, new) = files(files_at.path());
    let (one, two) = (setup().start().await, setup().start().await);
    let job = fill(&one, &receiver).await;
    one.api.until_shown("/v1/nodes", |nodes| nodes["items"].as_array().is_some_and(|nodes| nodes.len() == 2)).await;
    let refused = rotate(&url, &old, &new, &[]).await;
    assert!(refused.error(1).contains("servers that use the database: 2; stop them first"), "{refused:?}");

    // One after the other, the nodes get both keys: they read under either, and write under the new one.
    one.stop().await;
    let one = under(setup(), &new, Some(&old)).start().await;
    assert_usable(&one, &job).await;
    two.stop().await;
    let two = under(setup(), &new, Some(&old)).start().await;
    one.api.put("/v1/keys/written-now", json!({"secret": "x"})).await.expect(204);
    two.api.until_status("/v1/keys/written-now", 200).await;
    let counts = status(&url, &new, Some(&old)).await;
    assert_eq!((&counts["current"], &counts["old"], &counts["unusable"]), (&json!(1), &json!(3), &json!(0)));
    let leftover = format!("{:#}", under(setup(), &new, None).try_start().await.err().expect("it is refused"));
    assert!(leftover.contains("is not the master key"), "{leftover}");

    rotate(&url, &old, &new, &["--while-serving"]).await.ok();
    let counts = status(&url, &new, Some(&old)).await;
    assert_eq!((&counts["current"], &counts["old"]), (&json!(4), &json!(0)), "nothing old is left");
    for node in [&one, &two] {
        assert_usable(node, &job).await;
    }
    // What the nodes have in memory from before does not bring the old form back.
    let versioned = json!({"groups": ["g"]});
    two.api.patch("/v1/keys/k", versioned).await.ok();
    assert_eq!(status(&url, &new, Some(&old)).await["old"], 0);

    one.stop().await;
    let one = under(setup(), &new, None).start().await;
    two.stop().await;
    assert_usable(&one, &job).await;
    one.api.post(&format!("/v1/jobs/{job}/run"), json!({})).await.ok();
    one.api.until_state(&job, "succeeded").await;
    let error = format!("{:#}", setup().try_start().await.err().expect("the old key is refused"));
    assert!(error.contains("is not the master key"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lease_of_a_node_with_the_old_key_is_settled_by_a_node_with_both() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = files(dir.path());
    let host = Setup::new().start().await;
    host.api.put_group("q", json!({})).await;
    host.api.job_id("q", json!({"payload": 1})).await;
    let lease = crate::support::queue::one(&host.api).await;
    let kept = Arc::clone(&host.dir);
    host.stop().await;
    let host = under(Setup::new().in_dir(&kept), &new, Some(&old)).start().await;
    crate::support::queue::say(&host.api, &lease, "complete", json!({})).await.ok();
    host.stop().await;
    let (store, old) = (store_of(kept.path()), old.display().to_string());
    let environment = [("CARILLON_KEYS__MASTER_KEY", NEW_KEY), ("CARILLON_KEYS__OLD_MASTER_KEY_FILE", old.as_str())];
    let shown = run(&["keys", "status", "--store", &store], &environment, "").await;
    assert!(shown.ok().contains("current") && shown.stderr.contains("keys.old_master_key_file"), "{shown:?}");
}
