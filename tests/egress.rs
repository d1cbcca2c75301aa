//! Where requests may not go, whatever name leads there.

use serde_json::{Value, json};

use crate::support::{Answer, Api, Receiver, Setup, TestHost};

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
        let message = attempt["error"]["message"].as_str().unwrap();
        let (named, told) = (url.contains("localhost"), message.contains("egress.allow"));
        assert_eq!(told, !named, "it says what to do, unless that would tell what a name means: {attempt}");
    }
    assert_eq!(receiver.count("/"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn private_networks_and_metadata_services_are_refused() {
    let host = Setup::new().set("egress.allow", "").start().await;
    for address in [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "168.63.129.16",
        "[fe80::1]",
        "[fd00::1]",
    ] {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quota_of_a_tenant_narrows_networks_and_ports() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    let acme = host.api.tenant("acme").await;
    acme.put_group("g", json!({"retry": {"config": {"max_attempts": 1}}, "limits": {"redirects": 1}})).await;
    let quota = async |egress: Value| {
        let put = host.api.put("/v1/tenants/acme", json!({"quota": {"egress": egress}})).await.ok();
        assert_eq!(put["quota"]["egress"], egress);
    };
    let ended = async |api: &Api, url: &str, state: &str| {
        let id = api.job_id("g", json!({"url": url})).await;
        api.until_state(&id, state).await;
        api.attempts(&id).await.remove(0)
    };
    let (address, name) = (receiver.url("/x"), receiver.url("/x").replace("127.0.0.1", "localhost"));
    let port = receiver.port.to_string();
    // A connection that another tenant has left open takes nobody to where the quota does not.
    host.api.put_group("g", json!({})).await;
    ended(&host.api, &address, "succeeded").await;
    ended(&host.api, &name, "succeeded").await;
    for egress in [
        json!({"deny": ["127.0.0.0/8", "::1"]}),
        json!({"allow": ["203.0.113.0/24"]}),
        json!({"allow": ["127.0.0.0/8", "::1/128"], "deny": ["127.0.0.1/32", "::1/128"]}),
        json!({"ports": ["1", "2-3"]}),
    ] {
        quota(egress.clone()).await;
        for url in [&address, &name] {
            let refused = ended(&acme, url, "dead").await;
            assert_eq!(refused["error"]["code"], "send.refused-address", "{egress}: {refused}");
        }
        let job = json!({"job": {"url": address}});
        let foretold = acme.post("/v1/groups/g/policy/simulate", job).await.expect(200);
        assert_eq!(foretold["refused"]["code"], "send.refused-address", "{egress}");
    }
    quota(json!({"allow": ["127.0.0.0/8", "::1/128"], "ports": [port.clone()]})).await;
    let before = receiver.count("/x");
    ended(&acme, &address, "succeeded").await;
    ended(&acme, &name, "succeeded").await;
    assert_eq!(receiver.count("/x"), before + 2);
    let other = Receiver::start().await;
    receiver.on("/away", [Answer::status(307).header("location", other.url("/y"))]);
    let refused = ended(&acme, &receiver.url("/away"), "dead").await;
    assert_eq!(refused["error"]["code"], "send.refused-address", "a redirect to another port: {refused}");
    assert_eq!(other.count("/y"), 0);
    // It can narrow, and never widen.
    quota(json!({"allow": ["10.0.0.0/8"]})).await;
    let refused = ended(&acme, "http://10.0.0.1/", "dead").await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("egress.allow"), "{refused}");
    for (egress, pointer) in [
        (json!({"allow": ["here"]}), "/quota/egress/allow/0"),
        (json!({"deny": ["10.0.0.0/8", "10.0.0.0/99"]}), "/quota/egress/deny/1"),
        (json!({"ports": []}), "/quota/egress/ports"),
    ] {
        host.api.put("/v1/tenants/acme", json!({"quota": {"egress": egress}})).await.problem_at(422, pointer);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_of_a_name_does_not_tell_where_the_name_leads() {
    for setup in [Setup::new().set("egress.allow", ""), Setup::new().set("egress.deny", "127.0.0.0/8,::1/128")] {
        let host = setup.start().await;
        let refused = attempt(&host, "http://localhost:9/").await;
        let message = refused["error"]["message"].as_str().unwrap();
        assert_eq!(refused["error"]["code"], "send.refused-address", "{refused}");
        assert!(message.contains("`localhost`"), "it has the name that was given: {message}");
        for hint in ["127.0.0.1", "::1", "loopback", "egress."] {
            assert!(!refused.to_string().contains(hint), "{hint}: {refused}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_address_is_refused_in_every_form_and_by_name() {
    let host = Setup::new().set("egress.deny", "127.0.0.0/8").start().await;
    for target in ["127.0.0.1", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::1]", "[64:ff9b:1::7f00:1]"] {
        let refused = attempt(&host, &format!("http://{target}:9/")).await;
        assert_eq!(refused["error"]["code"], "send.refused-address", "{target}: {refused}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(!message.contains("egress.allow"), "allowing it changes nothing: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ports_that_are_not_allowed_are_refused_also_for_redirects() {
    let (open, closed) = (Receiver::start().await, Receiver::start().await);
    let host = Setup::new().set("egress.ports", &open.port.to_string()).start().await;
    open.on("/away", [Answer::status(302).header("location", closed.url("/inside"))]);
    host.api.put_group("g", json!({"limits": {"redirects": 1}})).await;
    let id = host.api.job_id("g", json!({"url": open.url("/a")})).await;
    host.api.until_state(&id, "succeeded").await;
    for url in [closed.url("/inside"), closed.url("/inside").replace("127.0.0.1", "localhost")] {
        let refused = attempt(&host, &url).await;
        assert_eq!(refused["error"]["code"], "send.refused-address", "{refused}");
        assert!(refused["error"]["message"].as_str().unwrap().contains("egress.ports"), "{refused}");
    }
    host.api.put_group("g", json!({"limits": {"redirects": 1}, "retry": {"config": {"max_attempts": 1}}})).await;
    let id = host.api.job_id("g", json!({"url": open.url("/away")})).await;
    host.api.until_state(&id, "dead").await;
    assert_eq!(host.api.attempts(&id).await[0]["error"]["code"], "send.refused-address");
    assert_eq!(closed.count("/inside"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulate_tells_that_a_target_would_be_refused() {
    let host = Setup::new().set("egress.allow", "").set("egress.ports", "80,443").start().await;
    host.api.put_group("g", json!({})).await;
    let foretold = async |url: &str| {
        let trial = json!({"job": {"url": url}});
        host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200)["refused"].clone()
    };
    for url in ["http://127.0.0.1/", "http://[::ffff:10.0.0.1]/", "http://168.63.129.16/", "http://example.com:22/"] {
        assert_eq!(foretold(url).await["code"], "send.refused-address", "{url}");
    }
    for url in ["http://8.8.8.8/", "https://example.com/", "http://localhost/"] {
        assert_eq!(foretold(url).await, Value::Null, "{url}: not known without a connection");
    }
}
