//! The server's ports over TLS: their certificate, and clients that do not finish a handshake.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use reqwest::Version;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{
    ADMIN_TOKEN, Answer, Api, ManualClock, Program, Receiver, Setup, TestHost, eventually, put_certificate, run, soon,
    tls_file, trusting,
};

/// The first bytes of a handshake.
const HALF_A_HANDSHAKE: &[u8] = &[22, 3, 1];

/// How often the server looks at the files of its certificate, and more.
const NEXT_LOOK: Duration = Duration::from_secs(31);

fn address(base: &str) -> SocketAddr {
    let port = base.rsplit(':').next().unwrap().parse().unwrap();
    ([127, 0, 0, 1], port).into()
}

async fn send(base: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address(base)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Whether a new connection is by a certificate of this authority.
async fn is_certified(base: &str, authority: &str) -> bool {
    let client = trusting(authority).build().unwrap();
    soon("a connection", client.get(format!("{base}/healthz")).send()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_is_served_over_tls_1_2_and_1_3_with_http_2_and_1_1() {
    let (host, receiver) = (Setup::new().with_tls().start().await, Receiver::start().await);
    let clients = [
        ("HTTP/2", trusting("ca.pem"), Version::HTTP_2),
        ("HTTP/1.1", trusting("ca.pem").http1_only(), Version::HTTP_11),
        ("TLS 1.2", trusting("ca.pem").tls_version_max(reqwest::tls::Version::TLS_1_2), Version::HTTP_2),
        ("TLS 1.3", trusting("ca.pem").tls_version_min(reqwest::tls::Version::TLS_1_3), Version::HTTP_2),
    ];
    host.api.put_group("g", json!({})).await;
    for (name, client, version) in clients {
        let url = format!("{}/v1/groups/g/jobs", host.base);
        let path = format!("/{}", name.replace(['/', ' '], "-"));
        receiver.on(&path, [Answer::status(200)]);
        let job = json!({"url": receiver.url(&path), "payload_text": "x".repeat(300_000)});
        let request = client.build().unwrap().post(url).bearer_auth(ADMIN_TOKEN).json(&job);
        let response = soon("a response", request.send()).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!((response.status().as_u16(), response.version()), (201, version), "{name}");
        let arrival = receiver.arrived(&path, 1).await.remove(0);
        assert_eq!(arrival.text().len(), 300_000, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_ports_have_tls() {
    let setup = Setup::new().with_tls().set("metrics.listen", "127.0.0.1:0");
    let setup = setup.set("compat.doppler.enabled", "true").set("compat.doppler.listen", "127.0.0.1:0");
    let host = setup.start().await;
    let (metrics, (_, mount)) = (host.metrics().unwrap(), host.mounts().remove(0));
    let client = trusting("ca.pem").build().unwrap();
    for (port, path) in [(metrics.port(), "/metrics"), (mount.port(), "/")] {
        let answer = soon("a response", client.get(format!("https://localhost:{port}{path}")).send()).await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_2, "{path}: {}", answer.status());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_does_not_start_with_a_certificate_that_it_cannot_use() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, contents: &[u8], mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let read = |name: &str| std::fs::read(tls_file(name)).unwrap();
    let good = (file("good.pem", &read("server.pem"), 0o644), file("good.key", &read("server.key"), 0o600));
    let group = file("group.key", &read("server.key"), 0o640);
    let others = file("others.key", &read("server.key"), 0o604);
    let other = file("other.key", &read("other.key"), 0o600);
    let text = file("text.key", b"no key", 0o600);
    let none = dir.path().join("none").display().to_string();
    for (certificate, key, expected) in [
        (&good.0, &group, "`server.tls_key` (", "group or others have access to it (its mode is 0640)"),
        (&good.0, &others, "`server.tls_key` (", "chmod 600"),
        (&good.0, &other, "cannot be used together", "KeyMismatch"),
        (&good.0, &text, "`server.tls_key` (", "has no private key in PEM"),
        (&good.0, &none, "`server.tls_key` (", "cannot be read"),
        (&text, &good.1, "`server.tls_cert` (", "no certificate in PEM"),
        (&none, &good.1, "`server.tls_cert` (", "cannot be read"),
    ]
    .map(|(certificate, key, place, reason)| (certificate, key, [place, reason]))
    {
        let setup = Setup::new().set("server.tls_cert", certificate).set("server.tls_key", key);
        let error = setup.try_start().await.err().expect("it does not start");
        let message = format!("{error:#}");
        assert!(expected.iter().all(|part| message.contains(part)), "{expected:?}: {message}");
    }
    assert!(Setup::new().set("server.tls_cert", &good.0).set("server.tls_key", &good.1).try_start().await.is_ok());
}

async fn reloads(api: &Api, outcome: &str) -> u64 {
    api.metric(&format!("carillon_tls_certificate_reloads_total{{outcome=\"{outcome}\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_is_replaced_when_its_files_have_changed() {
    let clock = ManualClock::new();
    let setup = Setup::with_clock(&clock).with_tls();
    let host = setup.start().await;
    let moved_on = async |what: &str, authority: &str| {
        let look = async || {
            clock.advance(NEXT_LOOK);
            is_certified(&host.base, authority).await
        };
        eventually(what, look, |is_certified| *is_certified).await;
    };
    assert!(is_certified(&host.base, "ca.pem").await && !is_certified(&host.base, "other-ca.pem").await);
    put_certificate(setup.dir(), "other");
    moved_on("the other certificate is in use", "other-ca.pem").await;
    assert!(!is_certified(&host.base, "ca.pem").await);
    let api = Api::over(trusting("other-ca.pem").build().unwrap(), &host.base, Some(ADMIN_TOKEN));
    assert_eq!((reloads(&api, "replaced").await, reloads(&api, "failed").await), (1, 0));

    std::fs::write(setup.dir().join("cert.key"), std::fs::read(tls_file("client.key")).unwrap()).unwrap();
    let look = async || {
        clock.advance(NEXT_LOOK);
        reloads(&api, "failed").await
    };
    eventually("the key does not belong to the certificate", look, |failed| *failed == 1).await;
    assert!(is_certified(&host.base, "other-ca.pem").await, "the previous certificate stays in use");
    put_certificate(setup.dir(), "server");
    moved_on("the first certificate is in use", "ca.pem").await;
    assert_eq!((reloads(&host.api, "replaced").await, reloads(&host.api, "failed").await), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_is_replaced_at_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("carillon.db").display());
    let (certificate, key) = put_certificate(dir.path(), "server");
    let environment = [("CARILLON_SERVER__TLS_CERT", &*certificate), ("CARILLON_SERVER__TLS_KEY", &*key)];
    let program = Program::serve(&["--store", &store, "--no-auth"], &environment).await;
    let base = format!("https://localhost:{}", address(&program.base).port());
    assert!(is_certified(&base, "ca.pem").await);
    std::fs::remove_file(&key).unwrap();
    program.signal("HUP").await;
    let log = program.until_logged("certificate reload failed").await;
    assert!(log.contains("`server.tls_key`"), "{log}");
    assert!(is_certified(&base, "ca.pem").await, "the previous certificate stays in use");
    put_certificate(dir.path(), "other");
    program.signal("HUP").await;
    program.until_logged("certificate reloaded").await;
    assert!(is_certified(&base, "other-ca.pem").await && !is_certified(&base, "ca.pem").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshake_that_stalls_is_closed() {
    let host = Setup::new().with_tls().set("server.header_read_timeout", "300ms").start().await;
    for beginning in [&b""[..], HALF_A_HANDSHAKE] {
        let mut stream = send(&host.base, beginning).await;
        let left = soon("the server closes it", stream.read_to_end(&mut Vec::new())).await;
        assert!(left.is_err() || left.is_ok_and(|count| count == 0), "nothing is answered");
    }
    let count = async || host.api.metric("carillon_refused_total{bound=\"server.header_read_timeout\"}").await;
    eventually("both are counted", count, |count| *count >= 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_stall_give_way_to_clients() {
    for bound in ["server.connections", "server.connections_per_peer"] {
        let setup = Setup::new().with_tls().set(bound, "8").set("server.header_read_timeout", "1h");
        let host = setup.start().await;
        let mut stalled = Vec::new();
        for number in 0..40 {
            stalled.push(send(&host.base, if number % 2 == 0 { b"" } else { HALF_A_HANDSHAKE }).await);
        }
        for _ in 0..5 {
            assert!(is_certified(&host.base, "ca.pem").await, "{bound}");
            stalled.push(send(&host.base, HALF_A_HANDSHAKE).await);
        }
        assert!(host.api.metric(&format!("carillon_refused_total{{bound=\"{bound}\"}}")).await > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_without_tls_is_told_to_use_https() {
    let host = Setup::new().with_tls().start().await;
    let mut stream = send(&host.base, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
    assert!(answer.contains("application/problem+json") && answer.contains("this port serves HTTPS"), "{answer}");
    let mut other = send(&host.base, b"\x00\x01hello").await;
    soon("it is closed", other.read_to_end(&mut Vec::new())).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_line_trusts_a_file_of_authorities() {
    let host = Setup::new().with_tls().start().await;
    let (authority, wrong) = (tls_file("ca.pem").display().to_string(), tls_file("server.key").display().to_string());
    let environment = [("CARILLON_SERVER", &*host.base), ("CARILLON_TOKEN", ADMIN_TOKEN)];
    let who = run(&["whoami", "--json", "--ca-file", &authority], &environment, "").await.json();
    assert_eq!(who["tenant"], "default", "{who}");
    let in_environment = [&environment[..], &[("CARILLON_CA_FILE", &*authority)]].concat();
    assert_eq!(run(&["whoami", "--json"], &in_environment, "").await.json()["tenant"], "default");
    run(&["whoami"], &environment, "").await.error(1);
    let refused = run(&["whoami", "--ca-file", &wrong], &environment, "").await;
    assert!(refused.error(1).contains("--ca-file"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_certificates_where_the_server_asks_for_them() {
    let authority = tls_file("other-ca.pem").display().to_string();
    let host = Setup::new().with_tls().set("server.client_ca", &authority).start().await;
    assert!(!is_certified(&host.base, "ca.pem").await, "without a certificate nothing is served");
    let pem = [std::fs::read(tls_file("client.pem")).unwrap(), std::fs::read(tls_file("client.key")).unwrap()].concat();
    let client = trusting("ca.pem").identity(reqwest::Identity::from_pem(&pem).unwrap()).build().unwrap();
    let groups = client.get(format!("{}/v1/groups", host.base));
    let no_token = soon("a response", groups.try_clone().unwrap().send()).await.unwrap();
    assert_eq!(no_token.status().as_u16(), 401, "a certificate is no token");
    assert_eq!(soon("a response", groups.bearer_auth(ADMIN_TOKEN).send()).await.unwrap().status().as_u16(), 200);
    let file = host.dir.path().join("client.pem");
    std::fs::write(&file, pem).unwrap();
    let (trusted, certificate) = (tls_file("ca.pem").display().to_string(), file.display().to_string());
    let environment =
        [("CARILLON_SERVER", &*host.base), ("CARILLON_TOKEN", ADMIN_TOKEN), ("CARILLON_CA_FILE", &trusted)];
    run(&["whoami"], &environment, "").await.error(1);
    let who = run(&["whoami", "--json", "--client-cert", &certificate], &environment, "").await.json();
    assert_eq!(who["tenant"], "default", "{who}");
    let refused = run(&["whoami", "--client-cert", &trusted], &environment, "").await;
    assert!(refused.error(1).contains("--client-cert"), "{refused:?}");
    let none = Setup::new().with_tls().set("server.client_ca", "none.pem").try_start().await;
    let message = format!("{:#}", none.err().expect("it does not start"));
    assert!(message.contains("`server.client_ca` (none.pem): cannot be read"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_ends_connections_in_the_middle_of_a_handshake() {
    let host = Setup::new().with_tls().set("server.header_read_timeout", "1h").set("server.drain_timeout", "1h");
    let host = host.start().await;
    let mut stalled = send(&host.base, HALF_A_HANDSHAKE).await;
    assert!(is_certified(&host.base, "ca.pem").await);
    soon("it stops", TestHost::stop(host)).await;
    soon("it is closed", stalled.read_to_end(&mut Vec::new())).await.ok();
}
