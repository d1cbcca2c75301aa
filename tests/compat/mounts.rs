//! What holds for every mount: who may use it, where it is served, what its group is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Mounted, refused};
use crate::support::{ADMIN_TOKEN, Api, Receiver, Reply, Setup};

const MOUNTS: [&str; 3] = ["doppler", "poussetaches", "callme"];

/// A request that makes a job at each mount.
async fn make(api: &Api, mount: &str, url: &str) -> Reply {
    let (method, path, body) = match mount {
        "doppler" => (Method::POST, "/", json!({"callback_url": url, "message": "m", "run_at": 0})),
        "poussetaches" => (Method::POST, "/", json!({"url": url})),
        _ => (Method::PUT, "/task/n", json!({"callback": url, "trigger_at": "+0m"})),
    };
    api.raw(method, path, body.to_string()).await
}

/// A request that only reads.
fn reading(mount: &str) -> &str {
    match mount {
        "doppler" => "/00000000-0000-4000-8000-000000000000",
        "poussetaches" => "/waiting",
        _ => "/status/",
    }
}

fn at(base: &str, mount: &str) -> Api {
    Api::new(&format!("{base}/compat/{mount}"), Some(ADMIN_TOKEN))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_as_bearer_or_as_basic_and_have_roles() {
    let (host, receiver) = (Setup::new().start().await, Receiver::start().await);
    let viewer = host.api.token(json!({"name": "v", "role": "viewer"})).await;
    let producer = host.api.token(json!({"name": "p", "role": "producer"})).await;
    for mount in MOUNTS {
        let api = at(&host.base, mount);
        let anonymous = make(&api.without_token(), mount, &receiver.url("/never")).await;
        refused(&anonymous, 401);
        let challenges: Vec<_> = anonymous.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(challenges, ["Bearer", "Basic realm=\"carillon\", charset=\"UTF-8\""]);
        refused(&make(&api.with_token("wrong"), mount, &receiver.url("/never")).await, 401);
        refused(&make(&api.with_token(&viewer), mount, &receiver.url("/never")).await, 403);
        let basic = api.without_token().request(Method::GET, reading(mount));
        let basic = basic.header("authorization", format!("Basic {}", STANDARD.encode(format!(":{producer}"))));
        let basic = api.send(basic).await.status;
        assert!([200, 404].contains(&basic), "{mount}: {basic}");
        refused(&api.with_token(&viewer).get(reading(mount)).await, 403);
        let path = format!("/{mount}");
        let made = make(&api.with_token(&producer), mount, &receiver.url(&path)).await;
        assert!([200, 201].contains(&made.status), "{mount}: {}", made.text());
        receiver.arrived(&path, 1).await;
    }
    assert_eq!(receiver.count("/never"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_authentication_nobody_is_asked() {
    let host = Setup::new().set("auth.enabled", "false").start().await;
    let receiver = Receiver::start().await;
    for mount in MOUNTS {
        let path = format!("/{mount}");
        let made = make(&at(&host.base, mount).without_token(), mount, &receiver.url(&path)).await;
        assert!([200, 201].contains(&made.status), "{mount}: {}", made.text());
        receiver.arrived(&path, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_do_not_see_each_other() {
    let (host, receiver) =
        (Setup::new().set("compat.poussetaches.auth_key", "operators-own").start().await, Receiver::start().await);
    let tenant = host.api.tenant("acme").await;
    let token = tenant.token(json!({"name": "t", "role": "producer"})).await;
    for mount in MOUNTS {
        let (ours, theirs) = (at(&host.base, mount), at(&host.base, mount).with_token(&token));
        make(&theirs, mount, &receiver.url(&format!("/{mount}"))).await;
        receiver.arrived(&format!("/{mount}"), 1).await;
        assert_eq!(host.api.get(&format!("/v1/groups/{mount}")).await.status, 404, "the group is the tenant's");
        tenant.get(&format!("/v1/groups/{mount}")).await.expect(200);
        if mount != "doppler" {
            assert_eq!(ours.get(reading(mount)).await.expect(200), json!({"tasks": []}));
        }
    }
    let arrival = &receiver.arrivals("/poussetaches")[0];
    assert_eq!(arrival.header("poussetaches-auth-key"), None, "the operator's key is not for other tenants' receivers");

    tenant.put("/v1/keys/poussetaches-auth-key", json!({"kind": "header", "secret": "their-own"})).await;
    let other = host.api.tenant("other").await;
    other.put("/v1/keys/poussetaches-auth-key", json!({"kind": "header", "secret": "their-own"})).await.ok();
    let token = other.token(json!({"name": "t", "role": "producer"})).await;
    make(&at(&host.base, "poussetaches").with_token(&token), "poussetaches", &receiver.url("/own")).await;
    let arrival = receiver.arrived("/own", 1).await.remove(0);
    assert_eq!(
        arrival.header("poussetaches-auth-key"),
        Some("their-own"),
        "a tenant's key is in force from the first use"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_is_switched_off_or_put_on_a_port_of_its_own() {
    let receiver = Receiver::start().await;
    let mut setup = Setup::new().set("compat.callme.enabled", "false").set("compat.callme.listen", "127.0.0.1:0");
    for mount in ["doppler", "poussetaches"] {
        setup = setup.set(&format!("compat.{mount}.listen"), "127.0.0.1:0");
    }
    let host = setup.start().await;
    let reply = at(&host.base, "callme").get("/status/").await;
    assert_eq!(reply.problem(404)["status"], 404);
    let mounts = host.mounts();
    assert_eq!(mounts.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["doppler", "poussetaches"]);
    for (mount, address) in mounts {
        for base in [format!("http://{address}"), format!("{}/compat/{mount}", host.base)] {
            let api = Api::new(&base, Some(ADMIN_TOKEN));
            let before = receiver.count("/a");
            let made = make(&api, mount, &receiver.url("/a")).await;
            assert!([200, 201].contains(&made.status), "{base}: {}", made.text());
            receiver.arrived("/a", before + 1).await;
            refused(&make(&api.without_token(), mount, &receiver.url("/a")).await, 401);
        }
        let alone = Api::new(&format!("http://{address}"), Some(ADMIN_TOKEN));
        for path in ["/v1/groups", "/metrics", "/openapi.json"] {
            refused(&alone.get(path).await, 404);
        }
        refused(&alone.raw(Method::POST, "/", "x".repeat(20 << 20)).await, 413);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configuration_of_a_mount_lies_under_what_its_group_says_itself() {
    let at = Mounted::start("poussetaches").await;
    make(&at.api, "poussetaches", &at.receiver.url("/a")).await;
    let in_force = async |api: &Api| api.get("/v1/groups/poussetaches?effective=true").await.expect(200);
    let limits = json!({"concurrency": 2, "rate": "3/s", "burst": 5, "redirects": 5, "timeout": "30s"});
    assert_eq!(in_force(&at.host.api).await["limits"], limits);
    at.host.api.put_group("poussetaches", json!({"limits": {"timeout": "7s", "concurrency": 9}})).await;

    let Mounted { host, receiver, .. } = at;
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let variable = "POUSSETACHES_AUTH_KEY";
    let setup = Setup::new().in_dir(&dir).set("compat.poussetaches.rate", "");
    let host = setup.variable(variable, "from-the-environment").start().await;
    let group = in_force(&host.api).await;
    assert_eq!(group["limits"], json!({"concurrency": 9, "redirects": 5, "timeout": "7s"}));
    let version = group["version"].clone();
    let api = super::mounts::at(&host.base, "poussetaches");
    make(&api, "poussetaches", &receiver.url("/b")).await;
    let arrival = receiver.arrived("/b", 1).await.remove(0);
    assert_eq!(arrival.header("poussetaches-auth-key"), Some("from-the-environment"));

    host.stop().await;
    let setup = setup.set("compat.poussetaches.auth_key", "configured").variable(variable, "from-the-environment");
    let host = setup.start().await;
    assert_eq!(host.api.get("/v1/groups/poussetaches").await.expect(200)["version"], version, "nothing changed");
    make(&super::mounts::at(&host.base, "poussetaches"), "poussetaches", &receiver.url("/c")).await;
    let arrival = receiver.arrived("/c", 1).await.remove(0);
    assert_eq!(arrival.header("poussetaches-auth-key"), Some("configured"), "the configuration goes first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_make_no_sense_stop_the_start() {
    let refusal = async |key: &str, value: &str| match Setup::new().set(key, value).try_start().await {
        Ok(_) => panic!("{key} = {value} is accepted"),
        Err(error) => format!("{error:#}"),
    };
    assert!(refusal("compat.doppler.workers", "0").await.contains("compat.doppler"));
    assert!(refusal("compat.callme.rate", "often").await.contains("compat.callme"));
    assert!(refusal("compat.callme.group", "not a/name").await.contains("compat.callme.group"));
    assert!(refusal("compat.callme.group", "doppler").await.contains("compat.callme.group"));
    assert!(refusal("compat.poussetaches.auth_key", "two\nlines").await.contains("compat.poussetaches"));
    assert!(refusal("compat.poussetaches.time_zone", "Mars/Olympus").await.contains("compat.poussetaches.time_zone"));
    assert!(refusal("compat.doppler.listen", "nowhere").await.contains("compat.doppler.listen"));
    assert!(refusal("compat.doppler.colour", "red").await.contains("compat.doppler.colour"));
    assert!(refusal("compat.sidekiq.enabled", "true").await.contains("compat.sidekiq"));
    let open = Setup::new().set("auth.enabled", "false").set("compat.doppler.listen", "0.0.0.0:0");
    let Err(error) = open.try_start().await else { panic!("it is open to everybody") };
    assert!(format!("{error:#}").contains("auth.enabled"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_breaks_a_mount() {
    let host = Setup::new().start().await;
    let bodies: [&[u8]; 12] = [
        b"",
        b"null",
        b"true",
        b"0",
        b"[]",
        b"\"\"",
        b"{",
        b"\xff\xfe",
        b"{\"a\": 1e999}",
        b"[[[[[[",
        b"{\"url\": {}}",
        b"\0",
    ];
    let paths = [
        "",
        "/",
        "/x",
        "/%ff",
        "/task/%00",
        "/task/a",
        "/reschedule/a",
        "/reschedule/%ff@1",
        "/cron",
        "/pause/x",
        "/?a=%ff&a=%",
    ];
    for mount in MOUNTS {
        let api = at(&host.base, mount);
        for path in paths {
            for body in bodies {
                for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
                    let reply = api.raw(method.clone(), path, body.to_vec()).await;
                    assert!(reply.status < 500, "{mount}: {method} {path} {body:?}: {} {}", reply.status, reply.text());
                    let is_refusal = reply.status >= 400 && !reply.body.is_empty();
                    assert!(
                        !is_refusal || reply.json()["error"] != Value::Null,
                        "{mount}: {method} {path}: {}",
                        reply.text()
                    );
                }
            }
        }
    }
}
