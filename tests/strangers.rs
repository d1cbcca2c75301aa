//! What people without a token can send: it is answered, and leaves nothing behind.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use carillon_api::connections::Connections;
use carillon_api::door::Door;
use carillon_api::serve::{ServeLimits, serve};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::{ADMIN_TOKEN, Api, TestHost, soon};

/// Requests of a round.
const REQUESTS: usize = 250;

/// The series of all metrics.
async fn series(api: &Api) -> Vec<String> {
    let metrics = api.get("/metrics").await;
    let names = metrics.text().lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// Requests that differ in everything that a stranger can choose.
async fn everything_differs(door: &Door, round: usize) {
    for number in 0..REQUESTS {
        let word = format!("M{round}x{number}{}", "X".repeat(500));
        let paths =
            ["/healthz".to_owned(), format!("/{word}"), format!("/v1/groups/{word}"), format!("/compat/{word}/{word}")];
        for path in paths {
            for method in [Method::from_bytes(word.as_bytes()).unwrap(), Method::GET, Method::POST, Method::TRACE] {
                let request = Request::builder().method(method).uri(&path);
                let request = request.header("host", &word).header("user-agent", &word).header("authorization", &word);
                let request = request.header("carillon-tenant", &word).header("idempotency-key", &word);
                let status = door.answer(request.body(Body::from(word.clone())).unwrap()).await.status().as_u16();
                assert!(status < 500, "{status}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_token_make_no_series_of_their_own() {
    let host = TestHost::start().await;
    let door = host.door();
    everything_differs(&door, 0).await;
    // The request for the metrics has a series itself, from the second time on.
    series(&host.api).await;
    let first = series(&host.api).await;
    assert!(first.iter().any(|series| series.contains(r#"method="other""#)), "{first:?}");
    everything_differs(&door, 1).await;
    let second = series(&host.api).await;
    assert_eq!(second, first, "nothing is kept of what is only sent");
    assert!(first.iter().all(|series| !series.contains("XXX")));
}

/// Connections that stay open without a word, many more than the server takes at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_make_room_for_one_that_asks_something() {
    let host = TestHost::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, end) = (CancellationToken::new(), CancellationToken::new());
    let limits = ServeLimits { header_read_timeout: Duration::from_secs(3_600), connections: Connections::new(4) };
    let serving = tokio::spawn(serve(listener, host.door(), limits, stop.clone(), end.clone()));
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let api = Api::new(&format!("http://{address}"), Some(ADMIN_TOKEN));
    api.get("/v1/groups").await.expect(200);
    drop((silent, api));
    stop.cancel();
    end.cancel();
    soon("it stops", serving).await.unwrap();
}
