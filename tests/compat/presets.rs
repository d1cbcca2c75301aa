//! The preset of a mount lies under its group, whoever writes that, and in whatever way.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Mounted;
use crate::support::{ADMIN_TOKEN, Answer, Api, Receiver, Setup};

/// What of a policy tells the presets from the server's defaults.
fn marks(group: &Value) -> Value {
    json!({
        "encode": group["encode"][0]["plugin"],
        "expect": group["judge"]["config"]["expect"],
        "kind": group["retry"]["config"]["kind"],
        "redirects": group["limits"]["redirects"],
    })
}

/// The same of each mount's preset.
fn preset(mount: &str) -> Value {
    match mount {
        "doppler" => json!({"encode": null, "expect": "100-399", "kind": "fixed", "redirects": 5}),
        "poussetaches" => json!({"encode": "base64-envelope", "expect": 200, "kind": "table", "redirects": 5}),
        _ => json!({"encode": null, "expect": 200, "kind": "exponential", "redirects": 5}),
    }
}

async fn effective(api: &Api, mount: &str) -> Value {
    api.get(&format!("/v1/groups/{mount}?effective=true")).await.expect(200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_of_a_mounts_group_keeps_its_preset_unless_it_says_otherwise() {
    let host = Setup::new().start().await;
    for tenant in ["default", "acme"] {
        let api = if tenant == "default" { host.api.clone() } else { host.api.tenant(tenant).await };
        for mount in ["doppler", "poussetaches", "callme"] {
            let path = format!("/v1/groups/{mount}");
            // Before its first use, too: nobody has used any mount here.
            for own in [json!({}), json!({"limits": {"concurrency": 8}}), json!({"dead_letters": null})] {
                api.put(&path, own.clone()).await.ok();
                assert_eq!(marks(&effective(&api, mount).await), preset(mount), "{tenant} {mount} {own}");
            }
            api.put(&path, json!({"judge": {"config": {"expect": 204}}, "limits": {"redirects": 1}})).await.ok();
            let group = effective(&api, mount).await;
            assert_eq!(
                (&group["judge"]["plugin"], &group["judge"]["config"]["expect"]),
                (&json!("expected-status"), &json!(204))
            );
            assert_eq!(
                (&group["limits"]["redirects"], &group["retry"]["config"]["kind"]),
                (&json!(1), &preset(mount)["kind"])
            );
            let sources = &group["sources"];
            assert_eq!(sources["/judge/config/expect"], "group", "{sources}");
            assert_eq!(sources["/retry/config/kind"], "preset", "{sources}");
            assert_eq!(sources["/limits/redirects"], "group", "{sources}");
            assert_eq!(sources["/limits/concurrency"], "preset", "{sources}");
            // Back to the version before.
            api.post(&format!("{path}/policy/rollback"), json!({})).await.expect(200);
            let mut expected = preset(mount);
            expected["redirects"] = 1.into();
            assert_eq!(marks(&effective(&api, mount).await), expected, "{tenant} {mount}");
        }
        // Another group has none of it.
        api.put_group("plain", json!({})).await;
        assert_eq!(effective(&api, "plain").await["judge"]["config"]["expect"], json!(["2xx"]));
    }
    host.api.put("/v1/groups/poussetaches", json!({"encode": []})).await.ok();
    assert_eq!(effective(&host.api, "poussetaches").await["encode"], json!([]), "it says otherwise");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_wait_keep_the_preset_when_the_group_is_changed() {
    let at = Mounted::doppler().await;
    at.receiver.on("/a", [500, 500, 500, 200].map(Answer::status));
    let job = |path: &str| {
        let mut job = at.callback(path, at.second());
        job["max_retries"] = 3.into();
        job["retry_delay"] = 1.into();
        job
    };
    let id = super::doppler::request_id(&at.scheduled(job("/a")).await);
    at.receiver.arrived("/a", 1).await;
    at.host.api.put("/v1/groups/doppler", json!({"limits": {"concurrency": 8}})).await.expect(200);
    for attempt in 2..=4 {
        at.until(&format!("/{id}"), "it waits for a second", |job| {
            job["retries_left"] == 4 - attempt && job["status"] == "early"
        })
        .await;
        at.advance(1);
        at.receiver.arrived("/a", attempt).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_before_and_after_the_first_use_keeps_the_preset() {
    let setup = Setup::new().set("compat.poussetaches.auth_key", "of-the-server");
    let host = setup.clone().file("[groups.poussetaches]\nlimits = { concurrency = 8 }").start().await;
    let dir = Arc::clone(&host.dir);
    let receiver = Receiver::start().await;
    let group = effective(&host.api, "poussetaches").await;
    assert_eq!((marks(&group), &group["limits"]["concurrency"]), (preset("poussetaches"), &json!(8)));
    assert_eq!(group["sources"]["/auth_headers/Poussetaches-Auth-Key"], "preset", "{group}");
    let api = Api::new(&format!("{}/compat/poussetaches", host.base), Some(ADMIN_TOKEN));
    api.post("/", json!({"url": receiver.url("/a"), "payload": "aGVsbG8="})).await.ok();
    let arrival = receiver.arrived("/a", 1).await.remove(0);
    assert_eq!(arrival.header("poussetaches-auth-key"), Some("of-the-server"));
    assert_eq!(serde_json::from_str::<Value>(arrival.text()).unwrap()["payload"], "aGVsbG8=");
    let version = group["version"].clone();
    host.stop().await;

    let host = setup.file("[groups.poussetaches]\nlimits = { concurrency = 8 }").in_dir(&dir).start().await;
    assert_eq!(effective(&host.api, "poussetaches").await["version"], version, "a restart changes nothing");
    host.stop().await;
    // What a restart takes away: the key is not sent any longer.
    let host = Setup::new().in_dir(&dir).start().await;
    host.api.get("/v1/keys/poussetaches-auth-key").await.problem(404);
    let api = Api::new(&format!("{}/compat/poussetaches", host.base), Some(ADMIN_TOKEN));
    api.post("/", json!({"url": receiver.url("/b")})).await.ok();
    assert_eq!(receiver.arrived("/b", 1).await[0].header("poussetaches-auth-key"), None);
    assert_eq!(marks(&effective(&host.api, "poussetaches").await), preset("poussetaches"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_that_was_put_over_the_api_is_sent_whatever_the_configuration_says() {
    let host = Setup::new().start().await;
    let dir = Arc::clone(&host.dir);
    let key = json!({"kind": "header", "secret": "of-the-tenant"});
    host.api.put("/v1/keys/poussetaches-auth-key", key).await.ok();
    host.stop().await;
    let host = Setup::new().in_dir(&dir).start().await;
    let group = host.api.put("/v1/groups/poussetaches", json!({})).await;
    assert_eq!(group.status, 201);
    let headers = effective(&host.api, "poussetaches").await["auth_headers"].clone();
    assert_eq!(headers, json!({"Poussetaches-Auth-Key": "poussetaches-auth-key"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_the_configuration_reach_a_group_that_says_nothing_of_them() {
    let host = Setup::new().start().await;
    let dir = Arc::clone(&host.dir);
    let receiver = Receiver::start().await;
    let api = Api::new(&format!("{}/compat/doppler", host.base), Some(ADMIN_TOKEN));
    api.post("", json!({"callback_url": receiver.url("/a"), "message": "", "run_at": 0})).await.expect(200);
    assert_eq!(effective(&host.api, "doppler").await["limits"]["concurrency"], 32);
    host.stop().await;
    let host = Setup::new().in_dir(&dir).set("compat.doppler.workers", "7").start().await;
    assert_eq!(effective(&host.api, "doppler").await["limits"]["concurrency"], 7);
    host.api.put("/v1/groups/doppler", json!({"limits": {"concurrency": 3}})).await.expect(200);
    host.stop().await;
    let host = Setup::new().in_dir(&dir).set("compat.doppler.workers", "7").start().await;
    assert_eq!(effective(&host.api, "doppler").await["limits"]["concurrency"], 3, "what a group says itself stays");
}
