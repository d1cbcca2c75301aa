//! Where requests may not go, whatever name leads there.

use serde_json::{Value, json};

use crate::support::{Receiver, Setup, TestHost};

/// The only attempt of a job for `url`, under a policy that gives up after one.
async fn attempt(host: &TestHost, url: &str) -> Value {
    host.api.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}})).await;
    let id = host.api.job_id("g", json!({"url": url})).await;
    host.api.until_state(&id, "dead").await;
    host.api.attempts(&id).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loopback_is_refused_unless_it_is_allowed() {
    let receiver = Receiver::start().await;
    let host = Setup::new().set("egress.allow", "").start().await;
    let port = receiver.port;
    for url in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.0.0.1:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://0.0.0.0:{port}/"),
    ] {
        let attempt = attempt(&host, &url).await;
        assert_eq!(attempt["error"]["code"], "send.refused-address", "{url}: {attempt}");
        assert!(
            attempt["error"]["message"].as_str().unwrap().contains("egress.allow"),
            "it says what to do: {attempt}"
        );
    }
    assert_eq!(receiver.count("/"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_networks_and_metadata_services_are_refused() {
    let host = Setup::new().set("egress.allow", "").start().await;
    for address in ["10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "[fe80::1]", "[fd00::1]"]
    {
        let attempt = attempt(&host, &format!("http://{address}/")).await;
        assert_eq!(attempt["error"]["code"], "send.refused-address", "{address}: {attempt}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_denied_is_refused_even_if_it_is_allowed() {
    let receiver = Receiver::start().await;
    let host = Setup::new().set("egress.deny", "127.0.0.1/32").start().await;
    assert_eq!(attempt(&host, &receiver.url("/a")).await["error"]["code"], "send.refused-address");
    assert_eq!(receiver.count("/a"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_network_is_reached_by_address_and_by_name() {
    let receiver = Receiver::start().await;
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    for url in [receiver.url("/address"), receiver.url("/name").replace("127.0.0.1", "localhost")] {
        let id = host.api.job_id("g", json!({"url": url})).await;
        host.api.until_state(&id, "succeeded").await;
    }
    assert_eq!((receiver.count("/address"), receiver.count("/name")), (1, 1));
}
