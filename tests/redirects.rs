//! Answers that send a request on: how far it goes, and what goes along.

use serde_json::{Value, json};

use crate::support::{Answer, Gate, Receiver, Setup, TestHost};

fn moved(status: u16, to: &str) -> Answer {
    Answer::body(status, "it has moved").header("location", to)
}

/// A group that follows so many redirects, takes everything below 400 for a success, and tries once.
async fn follows(host: &TestHost, redirects: u32) {
    let policy = json!({
        "judge": {"config": {"expect": "100-399"}},
        "retry": {"config": {"max_attempts": 1}},
        "limits": {"redirects": redirects, "timeout": "500ms"},
    });
    host.api.put_group("g", policy).await;
}

/// The only attempt of a job.
async fn attempt(host: &TestHost, job: Value) -> Value {
    let id = host.api.job_id("g", job).await;
    host.api.until(&id, "ends", |job| !job["finished_at"].is_null()).await;
    host.api.attempts(&id).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_is_followed_and_its_end_is_the_answer() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    follows(&host, 2).await;
    for (status, method, expected) in [
        (301, "POST", ("GET", "")),
        (302, "PUT", ("GET", "")),
        (303, "HEAD", ("HEAD", "")),
        (307, "POST", ("POST", "hello")),
        (308, "PATCH", ("PATCH", "hello")),
    ] {
        let (from, to) = (format!("/from/{status}"), format!("/to/{status}"));
        receiver.on(&from, [moved(status, &format!("../to/{status}?q=1#part"))]);
        receiver.on(&to, [Answer::status(204)]);
        let headers = json!({"Content-Type": "text/x", "Authorization": "Basic eDp5", "X-Own": "1"});
        let payload = if method == "HEAD" { Value::Null } else { json!("hello") };
        let job = json!({"url": receiver.url(&from), "method": method, "headers": headers, "payload_text": payload});
        let attempt = attempt(&host, job).await;
        assert_eq!(attempt["status"], 204, "{attempt}");
        assert_eq!(attempt["redirects"], json!([receiver.url(&format!("{to}?q=1"))]));
        assert_eq!(receiver.arrivals(&from)[0].method, method);
        let arrived = receiver.arrivals(&to).remove(0);
        assert_eq!((arrived.method.as_str(), arrived.text()), expected, "{status}");
        assert_eq!(arrived.target, format!("{to}?q=1"));
        assert_eq!(arrived.header("content-type"), (status >= 307).then_some("text/x"), "it goes with the body");
        assert_eq!(arrived.header("authorization"), Some("Basic eDp5"), "the origin is the same");
        assert_eq!((arrived.header("x-own"), arrived.header("referer")), (Some("1"), None));
        assert_eq!(arrived.header("idempotency-key"), receiver.arrivals(&from)[0].header("idempotency-key"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_secret_goes_to_another_origin_or_comes_back_from_there() {
    let (host, home, away) = (TestHost::start().await, Receiver::start().await, Receiver::start().await);
    follows(&host, 3).await;
    home.on("/start", [moved(307, "/again")]);
    home.on("/again", [moved(307, &away.url("/away").replace("http://", "http://their:own@"))]);
    away.on("/away", [moved(307, &home.url("/back"))]);
    let headers = json!({
        "Host": "shop.example", "Cookie": "a=b", "X-Key": "secret", "X-Signature": "v1", "Carillon-Signature": "v1", "Referer": "http://r/",
        "Accept-Language": "de", "Content-Type": "text/x", "User-Agent": "me",
    });
    let url = home.url("/start").replace("http://", "http://me:pass@");
    let job = json!({
        "url": url, "headers": headers, "payload_text": "hello", "metadata": {"k": "v"}, "metadata_headers": true,
    });
    let attempt = attempt(&host, job).await;
    assert_eq!((&attempt["status"], &attempt["error"]), (&json!(200), &Value::Null), "{attempt}");
    assert_eq!(home.arrivals("/again")[0].header("host"), Some("shop.example"), "the origin is the same");
    assert_eq!(away.arrivals("/away")[0].header("host"), away.url("").strip_prefix("http://"));
    assert_eq!(attempt["redirects"], json!([home.url("/again"), away.url("/away"), home.url("/back")]));
    let secrets = ["authorization", "cookie", "x-key", "x-signature", "carillon-signature", "referer"];
    for arrived in [home.arrivals("/start").remove(0), home.arrivals("/again").remove(0)] {
        assert!(secrets.iter().all(|name| arrived.header(name).is_some()), "{arrived:?}");
        assert_eq!(arrived.header("authorization"), Some("Basic bWU6cGFzcw=="));
    }
    for arrived in [away.arrivals("/away").remove(0), home.arrivals("/back").remove(0)] {
        let names: Vec<_> = arrived.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert!(!secrets.iter().any(|name| names.contains(name)), "{names:?}");
        let kept =
            [("accept-language", "de"), ("content-type", "text/x"), ("user-agent", "me"), ("carillon-attempt", "1")];
        assert!(kept.iter().all(|(name, value)| arrived.header(name) == Some(value)), "{arrived:?}");
        assert_eq!(arrived.header("carillon-metadata-k"), Some("v"));
        assert_eq!(arrived.header("traceparent"), home.arrivals("/start")[0].header("traceparent"));
        assert_eq!(arrived.text(), "hello");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_that_is_not_followed_is_no_success() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    receiver.on("/loop", [moved(302, "/loop")]);
    for (redirects, requests) in [(1, 2), (10, 11)] {
        follows(&host, redirects).await;
        let before = receiver.count("/loop");
        let attempt = attempt(&host, json!({"url": receiver.url("/loop")})).await;
        assert_eq!(attempt["error"]["code"], "send.redirect", "{attempt}");
        assert_eq!((&attempt["status"], &attempt["verdict"]["outcome"]), (&Value::Null, &json!("retryable")));
        assert_eq!(attempt["redirects"].as_array().unwrap().len(), requests - 1);
        assert_eq!(receiver.count("/loop") - before, requests);
    }
    for location in ["ftp://127.0.0.1/", "javascript:alert(1)", "http://[::1/", "http://"] {
        receiver.on("/odd", [moved(302, location)]);
        let attempt = attempt(&host, json!({"url": receiver.url("/odd")})).await;
        assert_eq!(attempt["error"]["code"], "send.redirect", "{location}: {attempt}");
    }
    for answer in [Answer::status(302), moved(302, ""), moved(304, "/loop"), moved(300, "/loop"), moved(305, "/loop")] {
        receiver.on("/answer", [answer]);
        let attempt = attempt(&host, json!({"url": receiver.url("/answer")})).await;
        assert_eq!(attempt["verdict"]["outcome"], "success", "it leads nowhere: {attempt}");
        assert_eq!(attempt.get("redirects"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_redirect_passes_the_guard() {
    let receiver = Receiver::start().await;
    let host = Setup::new().set("egress.allow", "127.0.0.1/32").start().await;
    follows(&host, 2).await;
    for address in ["169.254.169.254", "10.0.0.1", "127.0.0.2", "2130706434", "[::1]", "[::ffff:10.0.0.1]"] {
        let url = format!("http://{address}:{}/inside", receiver.port);
        receiver.on("/a", [moved(307, "/b")]);
        receiver.on("/b", [moved(307, &url)]);
        let attempt = attempt(&host, json!({"url": receiver.url("/a")})).await;
        assert_eq!(attempt["error"]["code"], "send.refused-address", "{url}: {attempt}");
        assert_eq!(attempt["redirects"].as_array().unwrap().len(), 2, "it says where it should have gone: {attempt}");
    }
    assert_eq!(receiver.count("/inside"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_timeout_holds_for_all_of_it() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    follows(&host, 2).await;
    receiver.on("/a", [moved(302, "/b")]);
    receiver.on("/b", [Answer::status(200).held(&Gate::closed())]);
    let attempt = attempt(&host, json!({"url": receiver.url("/a")})).await;
    assert_eq!(attempt["error"]["code"], "send.timeout", "{attempt}");
    assert_eq!(attempt["redirects"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirect_whose_body_does_not_end_is_followed() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    host.api.put_group("g", json!({"limits": {"redirects": 2, "timeout": "30s"}})).await;
    receiver.on("/c", [Answer::stalled_redirect("/d")]);
    let attempt = attempt(&host, json!({"url": receiver.url("/c")})).await;
    assert_eq!((&attempt["status"], receiver.count("/d")), (&json!(200), 1), "{attempt}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_redirect_says_besides_is_read_only_so_far() {
    let host = TestHost::start().await;
    follows(&host, 10).await;
    for (path, len) in [("/short", 10_000), ("/long", 100 << 20)] {
        let receiver = Receiver::start().await;
        let answer = Answer::long(302, len).header("location", path);
        receiver.on(path, std::iter::repeat_n(answer, 10).chain([Answer::status(200)]));
        let attempt = attempt(&host, json!({"url": receiver.url(path)})).await;
        assert_eq!((&attempt["status"], receiver.count(path)), (&json!(200), 11), "{attempt}");
        let connections = receiver.connections();
        // One that is free a moment too late is not waited for.
        assert_eq!(connections < 11, path == "/short", "{path}: {connections} connections");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_are_a_matter_of_the_group() {
    let host = TestHost::start().await;
    host.api.put("/v1/groups/g", json!({"limits": {"redirects": 11}})).await.problem_at(422, "/limits/redirects");
    host.api.put("/v1/groups/g", json!({"limits": {"redirects": -1}})).await.problem(422);
    host.api.put_group("g", json!({"limits": {"redirects": 10}})).await;
    host.api.post("/v1/groups/g/jobs", json!({"url": "http://a/", "limits": {"redirects": 1}})).await.problem(400);
    let trial = json!({"job": {"url": "http://a/"}, "responses": [{"error": "redirect"}, {}]});
    let foretold = host.api.post("/v1/groups/g/policy/simulate", trial).await.expect(200);
    assert_eq!(foretold["attempts"][0]["verdict"]["outcome"], "retryable");
}
