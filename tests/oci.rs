//! Components in OCI registries: Debian's own registry, and one that gives tokens and cannot be trusted.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::support::{Finished, Registry, judge, run};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// The user `me` with the password `sesame`.
const USERS: &str = "me:$2b$04$lQoya432VYacPRt4a7/WnuxVmFLJ38Kj9lW.YAIeVfUp7iNHoYkma\n";

fn sha256(bytes: &[u8]) -> String {
    carillon_policy::Digest::of(bytes).to_string()
}

async fn plugin(verb: &str, reference: &str, file: &Path, more: &[&str], environment: &[(&str, &str)]) -> Finished {
    let arguments = [&["plugin", verb, reference, file.to_str().unwrap(), "--json"], more].concat();
    run(&arguments, environment, "").await
}

async fn asked(url: &str) -> (HeaderMap, Bytes) {
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.get(url).header("accept", MANIFEST);
    let answer = request.send().await.unwrap().error_for_status().unwrap();
    (answer.headers().clone(), answer.bytes().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_goes_to_a_registry_and_comes_back() {
    let (registry, dir, bytes) = (Registry::start(None).await, tempfile::tempdir().unwrap(), judge().await);
    let (from, to) = (dir.path().join("from.wasm"), dir.path().join("to.wasm"));
    std::fs::write(&from, &bytes).unwrap();
    let repository = format!("oci://{}/acme/judge-json-ok", registry.address);
    let tagged = format!("{repository}:0.1.0");
    let pushed = plugin("push", &tagged, &from, &[], &[]).await.json();
    assert_eq!((&pushed["digest"], &pushed["reference"]), (&json!(sha256(&bytes)), &json!(tagged)));

    // What others find there.
    let api = format!("http://{}/v2/acme/judge-json-ok", registry.address);
    let tags: Value = serde_json::from_slice(&asked(&format!("{api}/tags/list")).await.1).unwrap();
    assert_eq!(tags["tags"], json!(["0.1.0"]));
    let (headers, manifest) = asked(&format!("{api}/manifests/0.1.0")).await;
    assert_eq!(
        (&headers["content-type"], &headers["docker-content-digest"]),
        (&MANIFEST.parse().unwrap(), &pushed["manifest"].as_str().unwrap().parse().unwrap())
    );
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!((&manifest["config"]["mediaType"], &manifest["mediaType"]), (&json!(CONFIG), &json!(MANIFEST)));
    let layer =
        json!({"mediaType": "application/wasm", "digest": format!("sha256:{}", sha256(&bytes)), "size": bytes.len()});
    assert_eq!(manifest["layers"], json!([layer]));
    let config = asked(&format!("{api}/blobs/{}", manifest["config"]["digest"].as_str().unwrap())).await.1;
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["architecture"], &config["os"]), (&json!("wasm"), &json!("wasip2")));
    assert_eq!(config["layerDigests"], json!([layer["digest"]]));
    assert!(
        config["component"]["exports"].as_array().unwrap().contains(&json!("carillon:policy/judge@0.1.0")),
        "{config}"
    );

    // The same again is the same artefact. It is pulled by its tag and by its digest.
    assert_eq!(plugin("push", &tagged, &from, &[], &[]).await.json(), pushed);
    for reference in [tagged.clone(), format!("{repository}@{}", pushed["manifest"].as_str().unwrap())] {
        let pulled = plugin("pull", &reference, &to, &[], &[]).await.json();
        assert_eq!((&pulled["digest"], &pulled["manifest"]), (&pushed["digest"], &pushed["manifest"]));
        assert_eq!(std::fs::read(&to).unwrap(), bytes);
        std::fs::remove_file(&to).unwrap();
    }
    plugin("push", &format!("{repository}:latest"), &from, &[], &[]).await.ok();
    plugin("pull", &repository, &to, &[], &[]).await.ok();
    std::fs::remove_file(&to).unwrap();

    // Somebody touches the component where the registry keeps it.
    let kept = registry.blob(&sha256(&bytes));
    let mut touched = std::fs::read(&kept).unwrap();
    *touched.last_mut().unwrap() ^= 1;
    std::fs::write(&kept, touched).unwrap();
    let refused = plugin("pull", &tagged, &to, &[], &[]).await;
    assert!(refused.error(1).contains("was damaged or modified") && !to.exists(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn artifact_that_is_no_component_is_neither_pushed_nor_pulled() {
    let (registry, dir) = (Registry::start(None).await, tempfile::tempdir().unwrap());
    let file = dir.path().join("x.wasm");
    std::fs::write(&file, "hello").unwrap();
    let repository = format!("oci://{}/x", registry.address);
    let refused = plugin("push", &format!("{repository}:1"), &file, &[], &[]).await;
    assert!(refused.error(1).contains("not a WebAssembly component"));
    let refused = plugin("pull", &format!("{repository}:1"), &file, &[], &[]).await;
    assert!(refused.error(1).contains("MANIFEST_UNKNOWN") || refused.error(1).contains("404"), "{refused:?}");
    std::fs::write(&file, wat::parse_str("(component)").unwrap()).unwrap();
    assert!(plugin("push", &repository, &file, &[], &[]).await.error(1).contains("a tag is required"));
    plugin("push", "oci://nowhere", &file, &[], &[]).await.error(2);
    let nobody = plugin("pull", "oci://127.0.0.1:1/x:1", &file, &[], &[]).await;
    assert!(nobody.error(1).contains("no response from http://127.0.0.1:1/v2/x/manifests/1"), "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_asks_for_a_password_gets_it() {
    let (registry, dir) = (Registry::start(Some(USERS)).await, tempfile::tempdir().unwrap());
    let file = dir.path().join("x.wasm");
    let component = wat::parse_str("(component)").unwrap();
    std::fs::write(&file, &component).unwrap();
    let reference = format!("oci://{}/x:1", registry.address);
    let home = dir.path().to_str().unwrap();
    let stranger = plugin("push", &reference, &file, &[], &[("HOME", home)]).await;
    assert!(stranger.error(1).contains("requires authentication"), "{stranger:?}");
    let me = ["--username", "me"];
    assert!(plugin("push", &reference, &file, &me, &[]).await.error(1).contains("CARILLON_OCI_PASSWORD"));
    let wrong = plugin("push", &reference, &file, &me, &[("CARILLON_OCI_PASSWORD", "wrong")]).await;
    assert!(wrong.error(1).contains("401") && !wrong.stderr.contains("wrong"), "{wrong:?}");
    plugin("push", &reference, &file, &me, &[("CARILLON_OCI_PASSWORD", "sesame")]).await.ok();

    // What `docker login` writes down.
    let auths = json!({"auths": {&registry.address: {"auth": "bWU6c2VzYW1l"}}});
    std::fs::create_dir(dir.path().join(".docker")).unwrap();
    std::fs::write(dir.path().join(".docker/config.json"), auths.to_string()).unwrap();
    let to = dir.path().join("y.wasm");
    plugin("pull", &reference, &to, &[], &[("HOME", home)]).await.ok();
    assert_eq!(std::fs::read(&to).unwrap(), component);
    std::fs::remove_file(&to).unwrap();
    let elsewhere = dir.path().join(".docker");
    plugin("pull", &reference, &to, &[], &[("DOCKER_CONFIG", elsewhere.to_str().unwrap())]).await.ok();
}

/// A registry that wants tokens, and answers with what it was told to, whatever is asked for.
#[derive(Clone, Default)]
struct Liar {
    address: String,
    answers: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Liar {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let liar = Self { address: listener.local_addr().unwrap().to_string(), answers: Arc::default() };
        let routes = Router::new().route("/token", get(token)).fallback(answer).with_state(liar.clone());
        tokio::spawn(async { axum::serve(listener, routes).await });
        liar
    }

    /// Gives this manifest, and for each of its digests these bytes.
    fn says(&self, manifest: &Value, blob: &[u8]) {
        let mut answers = self.answers.lock().unwrap();
        answers.insert("manifest".into(), manifest.to_string().into_bytes());
        answers.insert("blob".into(), blob.to_vec());
    }
}

async fn token(headers: HeaderMap, Query(query): Query<HashMap<String, String>>) -> Response {
    let known = headers.get(AUTHORIZATION).is_some_and(|value| value == "Basic bWU6c2VzYW1l");
    let asked = query.get("service").is_some_and(|it| it == "liar")
        && query.get("scope").is_some_and(|it| it == "repository:x:pull,push");
    if known && asked {
        axum::Json(json!({"token": "t"})).into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

async fn answer(State(liar): State<Liar>, uri: Uri, request: Request) -> Response {
    if request.headers().get(AUTHORIZATION).is_none_or(|value| value != "Bearer t") {
        let challenge =
            format!(r#"Bearer realm="http://{}/token",service="liar",scope="repository:x:pull,push""#, liar.address);
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let what = if uri.path().contains("/manifests/") { "manifest" } else { "blob" };
    liar.answers.lock().unwrap()[what].clone().into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_fetched_and_nothing_is_believed() {
    let (liar, dir) = (Liar::start().await, tempfile::tempdir().unwrap());
    let (to, bytes) = (dir.path().join("x.wasm"), wat::parse_str("(component)").unwrap());
    let manifest = |media_type: &str, size: usize| {
        let digest = format!("sha256:{}", sha256(&bytes));
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": CONFIG, "digest": digest, "size": 2},
            "layers": [{"mediaType": media_type, "digest": digest, "size": size}]})
    };
    let pull = async |pointer: &str| {
        let reference = format!("oci://{}/x{pointer}", liar.address);
        plugin("pull", &reference, &to, &["--username", "me"], &[("CARILLON_OCI_PASSWORD", "sesame")]).await
    };
    let good = manifest("application/wasm", bytes.len());
    liar.says(&good, &bytes);
    pull(":1").await.ok();
    assert_eq!(std::fs::read(&to).unwrap(), bytes);
    pull(&format!("@sha256:{}", sha256(good.to_string().as_bytes()))).await.ok();
    std::fs::remove_file(&to).unwrap();

    assert!(pull(&format!("@sha256:{}", "00".repeat(32))).await.error(1).contains("the manifest has the digest"));
    liar.says(&manifest("application/vnd.oci.image.layer.v1.tar+gzip", bytes.len()), &bytes);
    assert!(pull(":1").await.error(1).contains("its layer has the type `application/vnd.oci.image.layer.v1.tar+gzip`"));
    liar.says(&good, &vec![0; bytes.len()]);
    assert!(pull(":1").await.error(1).contains("was damaged or modified"));
    liar.says(&good, &[&bytes[..], b"more"].concat());
    assert!(pull(":1").await.error(1).contains(&format!("exceeds {} bytes", bytes.len())));
    liar.says(&good, &bytes[1..]);
    assert!(pull(":1").await.error(1).contains("the manifest announces"));
    liar.says(&manifest("application/wasm", usize::MAX), &bytes);
    assert!(pull(":1").await.error(1).contains("at most"));
    assert!(!to.exists(), "nothing of it was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_stay_with_the_registry_when_it_refers_to_another_host() {
    // The other host demands credentials, for itself or for a token server of its own.
    let shown: Arc<Mutex<Vec<String>>> = Arc::default();
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other_address = other.local_addr().unwrap();
    let seen = Arc::clone(&shown);
    let demands = move |request: Request| {
        let seen = Arc::clone(&seen);
        async move {
            if let Some(value) = request.headers().get(AUTHORIZATION) {
                seen.lock().unwrap().push(value.to_str().unwrap().to_owned());
            }
            let realm = format!("Bearer realm=\"http://{other_address}/token\",service=\"x\"");
            let challenge = if request.uri().path() == "/basic" { "Basic realm=\"x\"".to_owned() } else { realm };
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response()
        }
    };
    tokio::spawn(async move { axum::serve(other, Router::new().fallback(demands)).await });
    let (dir, bytes) = (tempfile::tempdir().unwrap(), judge().await);
    let from = dir.path().join("from.wasm");
    std::fs::write(&from, &bytes).unwrap();
    for (path, status) in
        [("basic", StatusCode::ACCEPTED), ("bearer", StatusCode::ACCEPTED), ("bearer", StatusCode::TEMPORARY_REDIRECT)]
    {
        let registry = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = registry.local_addr().unwrap();
        let onward = format!("http://{other_address}/{path}");
        let refers = move |request: Request| {
            let onward = onward.clone();
            async move {
                if request.method() == "POST" {
                    return (status, [(axum::http::header::LOCATION, onward)]).into_response();
                }
                StatusCode::NOT_FOUND.into_response()
            }
        };
        tokio::spawn(async move { axum::serve(registry, Router::new().fallback(refers)).await });
        let reference = format!("oci://{address}/acme/judge:0.1.0");
        let login = [("CARILLON_OCI_PASSWORD", "sesame")];
        let pushed = plugin("push", &reference, &from, &["--username", "me"], &login).await;
        assert_ne!(pushed.code, Some(0), "{path} {status}: {pushed:?}");
    }
    assert!(shown.lock().unwrap().is_empty(), "{shown:?}");
}
