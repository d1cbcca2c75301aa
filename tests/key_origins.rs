//! Keys that are bound to origins: requests to other origins are not sent, by no way.

use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Answer, Api, Receiver, Setup, TestHost, run};

/// Origin of a receiver, or of any other URL.
fn origin(receiver: &Receiver) -> String {
    receiver.url("")
}

/// Stores `sent`, a key that is sent, and `signs`, one that signs, both bound to `origins`, and groups that use one each.
async fn bound(api: &Api, origins: &[String]) {
    let sent = json!({"secret": "hunter2", "kind": "header", "origins": origins});
    api.put("/v1/keys/sent", sent).await.expect(204);
    api.put("/v1/keys/signs", json!({"secret": "s", "origins": origins})).await.expect(204);
    api.put_group("sends", json!({"auth_headers": {"X-Key": "sent"}, "limits": {"redirects": 3}})).await;
    let sign = json!({"plugin": "werkzeug-cookie", "keys": ["signs"]});
    let retry = json!({"config": {"max_attempts": 1}});
    api.put_group("signs", json!({"sign": sign, "limits": {"redirects": 3}, "retry": retry})).await;
}

/// Posts a job and returns its only attempt when the job has ended in `state`.
async fn attempt(api: &Api, group: &str, url: &str, state: &str) -> Value {
    let id = api.job_id(group, json!({"url": url, "payload": {}})).await;
    api.until_state(&id, state).await;
    let mut attempts = api.attempts(&id).await;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    attempts.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_goes_to_its_origins_only() {
    let (host, home, away) = (TestHost::start().await, Receiver::start().await, Receiver::start().await);
    bound(&host.api, &[origin(&home)]).await;
    for group in ["sends", "signs"] {
        attempt(&host.api, group, &home.url("/x"), "succeeded").await;
        let refused = attempt(&host.api, group, &away.url("/x"), "dead").await;
        assert_eq!((&refused["error"]["code"], &refused["spent"]), (&json!("key.origin"), &json!(false)), "{refused}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("the key `{group_key}`", group_key = key_of(group))), "{refused}");
        assert!(refused["plugins"].as_array().unwrap().is_empty(), "no policy was called: {refused}");

        let job = json!({"job": {"url": away.url("/x"), "payload": {}}});
        let foretold = host.api.post(&format!("/v1/groups/{group}/policy/simulate"), job).await.expect(200);
        assert_eq!((&foretold["error"]["code"], &foretold["request"]), (&json!("key.origin"), &Value::Null));
    }
    assert_eq!((home.count("/x"), away.count("/x")), (2, 0));
    assert_eq!(home.arrivals("/x")[0].header("x-key"), Some("hunter2"));
}

fn key_of(group: &str) -> &str {
    if group == "sends" { "sent" } else { group }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirects_take_a_bound_key_nowhere_else() {
    let (host, home, away) = (TestHost::start().await, Receiver::start().await, Receiver::start().await);
    let other = Receiver::start().await;
    bound(&host.api, &[origin(&home), origin(&other)]).await;
    home.on("/away", [Answer::status(307).header("location", away.url("/x"))]);
    let sent = attempt(&host.api, "sends", &home.url("/away"), "succeeded").await;
    assert_eq!(sent["redirects"], json!([away.url("/x")]));
    assert_eq!(away.arrivals("/x")[0].header("x-key"), None);

    home.on("/away", [Answer::status(307).header("location", away.url("/signed"))]);
    let refused = attempt(&host.api, "signs", &home.url("/away"), "dead").await;
    assert_eq!((&refused["error"]["code"], &refused["spent"]), (&json!("send.redirect"), &json!(true)), "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("`signs`"), "{refused}");
    assert_eq!(away.count("/signed"), 0);

    home.on("/other", [Answer::status(307).header("location", other.url("/signed"))]);
    attempt(&host.api, "signs", &home.url("/other"), "succeeded").await;
    assert_eq!(other.count("/signed"), 1, "another of its origins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_stay_until_they_are_changed_and_survive_a_restart() {
    let setup = Setup::new();
    let (host, home, away) = (setup.start().await, Receiver::start().await, Receiver::start().await);
    bound(&host.api, &[origin(&home)]).await;
    let origins = async |api: &Api| api.get("/v1/keys/signs").await.expect(200)["origins"].clone();
    host.api.put("/v1/keys/signs", json!({"secret": "new", "overlap": "1h"})).await.expect(204);
    assert_eq!(origins(&host.api).await, json!([origin(&home)]));
    host.stop().await;

    let host = setup.start().await;
    assert_eq!(origins(&host.api).await, json!([origin(&home)]));
    let id = host.api.job_id("signs", json!({"url": away.url("/x"), "payload": {}})).await;
    host.api.until_state(&id, "dead").await;
    let both = json!({"origins": [origin(&away), origin(&home)], "groups": ["signs"]});
    let granted = host.api.patch("/v1/keys/signs", both).await.expect(200);
    assert_eq!(granted["groups"], json!(["signs"]));
    let versions = granted["versions"].as_array().unwrap().len();
    assert_eq!(versions, 2, "a change of the origins makes no version");
    host.api.post(&format!("/v1/jobs/{id}/retry"), json!({})).await.ok();
    host.api.until_state(&id, "succeeded").await;
    assert_eq!(away.count("/x"), 1);

    let granted = host.api.patch("/v1/keys/signs", json!({"origins": null})).await.expect(200);
    assert_eq!((&granted["origins"], &granted["groups"]), (&Value::Null, &json!(["signs"])));
    let none = host.api.patch("/v1/keys/signs", json!({"origins": []})).await.expect(200);
    assert_eq!(none["origins"], json!([]));
    let refused = attempt(&host.api, "signs", &home.url("/y"), "dead").await;
    assert_eq!(refused["error"]["code"], "key.origin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origin_that_is_none_is_pointed_at_and_open_header_keys_warn() {
    let host = TestHost::start().await;
    let put = async |origins: Value| host.api.put("/v1/keys/k", json!({"secret": "s", "origins": origins})).await;
    put(json!(["https://a", "https://a/path"])).await.problem_at(422, "/origins/1");
    put(json!(vec!["https://a"; 101])).await.problem_at(422, "/origins");
    put(json!("https://a")).await.problem(400);
    put(json!(["HTTPS://A:443/", "https://a"])).await.expect(204);
    assert_eq!(host.api.get("/v1/keys").await.items()[0]["origins"], json!(["https://a"]));
    host.api.patch("/v1/keys/k", json!({"origins": ["a"]})).await.problem_at(422, "/origins/0");

    let put = host.api.put("/v1/keys/h", json!({"secret": "s", "kind": "header"})).await.expect(200);
    assert!(put["warnings"][0].as_str().unwrap().contains("`origins`"), "{put}");
    let origins = json!({"secret": "s", "kind": "header", "origins": ["https://a"]});
    host.api.put("/v1/keys/h", origins).await.expect(204);
    host.api.put("/v1/keys/h", json!({"secret": "t", "kind": "header"})).await.expect(204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_key_is_bound_to_the_origins_of_the_configuration() {
    let setup = Setup::new().variable("SIGNS", "s");
    let config = |origin: &str| format!("[keys.k]\nenv = \"SIGNS\"\norigins = [\"{origin}\"]\n");
    for origin in ["https://a", "https://b"] {
        let host = setup.clone().file(&config(origin)).start().await;
        assert_eq!(host.api.get("/v1/keys/k").await.expect(200)["origins"], json!([origin]));
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_line_binds_keys_to_origins() {
    let host = TestHost::start().await;
    let environment = [("CARILLON_SERVER", host.base.as_str()), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    let key = async || host.api.get("/v1/keys/k").await.expect(200);
    let open = run(&["key", "put", "k", "--kind", "header"], &environment, "s").await;
    open.ok();
    assert!(open.stderr.contains("warning: the key has no `origins`"), "{open:?}");
    let bound = ["key", "put", "k", "--kind", "header", "--origin", "https://a", "--origin", "https://b:8443"];
    let bound = run(&bound, &environment, "s").await;
    bound.ok();
    assert!(!bound.stderr.contains("warning"), "{bound:?}");
    assert_eq!(key().await["origins"], json!(["https://a", "https://b:8443"]));
    let granted = run(&["key", "grant", "k", "--origin", "https://c", "--group", "g"], &environment, "").await;
    assert!(granted.stdout.contains("granted to g, may go to https://c"), "{granted:?}");
    assert_eq!((&key().await["origins"], &key().await["groups"]), (&json!(["https://c"]), &json!(["g"])));
    run(&["key", "grant", "k", "--any-origin"], &environment, "").await.ok();
    assert_eq!((&key().await["origins"], &key().await["groups"]), (&Value::Null, &json!(["g"])));
    assert_ne!(run(&["key", "grant", "k"], &environment, "").await.code, Some(0), "there is nothing to change");
}
