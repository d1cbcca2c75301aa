//! What the command line is given goes out byte for byte, and what the server answers comes back so; what is given twice is not lost.

use serde_json::json;

use crate::support::{ADMIN_TOKEN, Finished, Receiver, TestHost, run};

async fn cli(host: &TestHost, arguments: &[&str], stdin: &str) -> Finished {
    run(arguments, &[("CARILLON_SERVER", &host.base), ("CARILLON_TOKEN", ADMIN_TOKEN)], stdin).await
}

/// JSON that a value would not keep: a large number, an order, a trailing zero, a repeated member, a lone surrogate.
const ODD: &str = r#"{"order": 12345678901234567890123, "b": 1, "a": 1.10, "d": 1, "d": 2, "e": 1e400, "s": "\ud800"}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_go_out_and_come_back_byte_for_byte() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({})).await;
    let odd = async |path: &str| {
        assert_eq!(receiver.arrived(path, 1).await[0].text(), ODD, "{path}");
    };
    cli(&host, &["job", "create", "g", &receiver.url("/create"), "-d", ODD], "").await.ok();
    odd("/create").await;
    let line = format!(r#"{{"url": "{}", "payload": {ODD}}}"#, receiver.url("/batch"));
    cli(&host, &["job", "batch", "g"], &line).await.ok();
    odd("/batch").await;
    let follow = format!(r#"{{"url": "{}", "payload": {ODD}}}"#, receiver.url("/follow"));
    cli(&host, &["job", "create", "g", &receiver.url("/first"), "--on-success", &follow], "").await.ok();
    odd("/follow").await;
    let schedule = format!(
        r#"{{"group": "g", "cron": "0 4 1 1 *", "job": {{"url": "{}", "payload": {ODD}}}}}"#,
        receiver.url("/tick")
    );
    cli(&host, &["schedule", "put", "s", "-f", "-"], &schedule).await.ok();
    let shown = cli(&host, &["schedule", "get", "s", "--json"], "").await;
    assert!(shown.ok().contains("12345678901234567890123") && shown.ok().contains("1.10"), "{shown:?}");
    cli(&host, &["schedule", "run", "s"], "").await.ok();
    odd("/tick").await;
    let simulated = cli(&host, &["policy", "simulate", "g", "http://a/", "-d", ODD], "").await;
    assert!(simulated.ok().contains(ODD), "{simulated:?}");
    cli(&host, &["job", "create", "g", "-d", ODD], "").await.ok();
    let leased = cli(&host, &["lease", "take", "g", "--json"], "").await;
    for kept in ["12345678901234567890123", "1.10", "1e400", r"\ud800"] {
        assert!(leased.ok().contains(kept), "{kept}: {leased:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_twice_is_not_lost() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let create = ["job", "create", "g", "http://a/"];
    let labels = cli(&host, &[&create[..], &["-m", "k=v", "-m", "k=w"]].concat(), "").await;
    assert!(labels.error(1).contains("the label `k` is given twice"), "{labels:?}");
    let object = cli(&host, &[&create[..], &["--policy", r#"{"retry": {}, "retry": {}}"#]].concat(), "").await;
    assert!(object.error(2).contains("`retry` is there twice"), "{object:?}");
    let group = cli(&host, &["group", "put", "g", "-f", "-"], r#"{"limits": {}, "limits": {}}"#).await;
    assert!(group.error(1).contains("standard input is neither a JSON object nor TOML"), "{group:?}");
    assert!(group.error(1).contains("`limits` is there twice"), "{group:?}");
}
