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
    carillon_policy::Digest::from_bytes(bytes).to_string()
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

/// Writes a credential helper that records what it is asked for.
fn write_helper(directory: &Path, name: &str, body: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let file = directory.join(format!("docker-credential-{name}"));
    let asked = directory.join("asked").display().to_string();
    std::fs::write(&file, format!("#!/bin/sh\necho \"{name} $1 $(cat)\" >>'{asked}'\n{body}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credential_helpers_are_asked_for_the_registry_and_nothing_else() {
    let (registry, dir) = (Registry::start(Some(USERS)).await, tempfile::tempdir().unwrap());
    let file = dir.path().join("x.wasm");
    std::fs::write(&file, wat::parse_str("(component)").unwrap()).unwrap();
    let printed = r#"echo '{"ServerURL": "x", "Username": "me", "Secret": "sesame"}'"#;
    write_helper(dir.path(), "good", printed);
    write_helper(dir.path(), "none", "echo 'credentials not found in native keychain'; exit 1");
    write_helper(dir.path(), "broken", "printf 'locked\\033[2J' >&2; exit 2");
    write_helper(dir.path(), "odd", "echo sesame");
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let home = dir.path().display().to_string();
    let push = async |config: Value| {
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        std::fs::write(dir.path().join("asked"), "").unwrap();
        let reference = format!("oci://{}/x:1", registry.address);
        let done = plugin("push", &reference, &file, &[], &[("DOCKER_CONFIG", &home), ("PATH", &path)]).await;
        (done, std::fs::read_to_string(dir.path().join("asked")).unwrap())
    };
    let address = &registry.address;
    let (pushed, asked) = push(json!({"credsStore": "broken", "credHelpers": {address: "good", "else": "odd"}})).await;
    pushed.ok();
    assert_eq!(asked, format!("good get {address}\n"));
    let (pushed, asked) = push(json!({"credsStore": "good"})).await;
    pushed.ok();
    assert_eq!(asked, format!("good get {address}\n"));
    // A helper that knows nothing leaves the file's own entry.
    let (pushed, asked) = push(json!({"credsStore": "none", "auths": {address: {"auth": "bWU6c2VzYW1l"}}})).await;
    pushed.ok();
    assert_eq!(asked, format!("none get {address}\n"));
    let (refused, _) = push(json!({"credsStore": "none"})).await;
    assert!(refused.error(1).contains("requires authentication"), "{refused:?}");
    let (refused, _) = push(json!({"credsStore": "broken"})).await;
    assert!(
        refused.error(1).contains("`docker-credential-broken get` ended with exit status: 2: locked"),
        "{refused:?}"
    );
    assert!(!refused.stderr.contains('\u{1b}'), "{refused:?}");
    let (refused, _) = push(json!({"credsStore": "odd"})).await;
    assert!(refused.error(1).contains("printed no `Username`") && !refused.stderr.contains("sesame"), "{refused:?}");
    let (refused, _) = push(json!({"credsStore": "../good"})).await;
    assert!(refused.error(1).contains("is not the name of a credential helper"), "{refused:?}");
    let (refused, _) = push(json!({"credsStore": "absent"})).await;
    assert!(refused.error(1).contains("`docker-credential-absent` cannot be started"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identity_token_is_exchanged_and_goes_to_the_token_server_only() {
    // A registry with a token server of its own, which takes the identity token in a form.
    let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let records = Arc::clone(&seen);
    let registry = move |request: Request| {
        let records = Arc::clone(&records);
        async move {
            let (parts, body) = request.into_parts();
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
            let line = format!("{} {}", parts.method, parts.uri.path());
            let known = parts.headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            let body = String::from_utf8_lossy(&body).into_owned();
            records.lock().unwrap().push((line.clone(), format!("{} {body}", known.as_deref().unwrap_or("-"))));
            if line == "POST /token" {
                return axum::Json(json!({"access_token": "granted"})).into_response();
            }
            match known.as_deref() {
                Some("Bearer granted") => StatusCode::NOT_FOUND.into_response(),
                _ => {
                    let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"s\",scope=\"a b\"");
                    (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response()
                }
            }
        }
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(registry)).await });
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"auths": {address.to_string(): {"auth": "MDo=", "identitytoken": "i&d"}}});
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let (to, home) = (dir.path().join("x.wasm"), dir.path().display().to_string());
    let pulled = plugin("pull", &format!("oci://{address}/x:1"), &to, &[], &[("DOCKER_CONFIG", &home)]).await;
    assert!(pulled.error(1).contains("404"), "{pulled:?}");
    let seen = seen.lock().unwrap().clone();
    let form = "- service=s&scope=a+b&client_id=carillon&grant_type=refresh_token&refresh_token=i%26d";
    assert_eq!(
        seen,
        [
            ("GET /v2/x/manifests/1".to_owned(), "- ".to_owned()),
            ("POST /token".to_owned(), form.to_owned()),
            ("GET /v2/x/manifests/1".to_owned(), "Bearer granted ".to_owned()),
        ]
    );
}
