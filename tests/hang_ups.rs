//! Clients that hang up in the middle of a request, at each point at which its handler waits for something.
//!
//! Whatever a handler has begun to write is finished: the server says then what a server says that starts on the same database, the tokens that it
//! lets in are the same, and jobs that were stored are delivered. The requests come from the description of the API, so that a new route
//! that changes something needs an entry here.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::task::Poll;

use axum::body::Body;
use axum::http::{Request, Response};
use carillon_api::door::Door;
use carillon_core::clock::Clock as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::scenes::{Play, all, routes, scene};
use crate::support::{ADMIN_TOKEN, Answer, Api, ManualClock, Receiver, Reply, Setup, eventually};

/// More pauses than any handler has.
const MOST_PAUSES: usize = 200;

async fn whole(response: Response<Body>) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The answer, if it comes within this many polls; after them the future is dropped, as that of a connection is which was closed.
async fn hung_up(door: &Door, request: Request<Body>, polls: usize) -> Option<Response<Body>> {
    let mut answer = pin!(door.answer(request));
    for _ in 0..polls {
        let mut polled = false;
        let ready = std::future::poll_fn(|context| {
            if polled {
                return Poll::Ready(None);
            }
            polled = true;
            answer.as_mut().poll(context).map(Some)
        });
        if let Some(response) = ready.await {
            return Some(response);
        }
    }
    None
}

/// What the server says of all that is configured and stored.
async fn state(api: &Api) -> BTreeMap<String, Value> {
    let mut state = BTreeMap::new();
    for list in ["groups", "keys", "tokens", "schedules", "bulk", "plugins", "tenants"] {
        let mut items = all(api, &format!("/v1/{list}")).await;
        assert!(!items.is_empty(), "{list}");
        // The use of a token is written later, and to the minute.
        for item in items.iter_mut().filter_map(Value::as_object_mut) {
            item.remove("last_used_at");
            item.remove("last_used_from");
        }
        state.insert(list.to_owned(), json!(items));
    }
    for name in state["groups"].as_array().unwrap().clone() {
        let name = name["name"].as_str().unwrap().to_owned();
        for part in ["", "/policy/versions", "/policy/history", "/stats", "/jobs"] {
            let path = format!("/v1/groups/{name}{part}");
            let found = api.get(&path).await.expect(200);
            state.insert(path, found);
        }
        let shadow = format!("/v1/groups/{name}/policy/shadow");
        let found = api.get(&shadow).await;
        state.insert(shadow, json!(found.status));
    }
    let versions = all(api, "/v1/plugins/mine/versions").await;
    state.insert("versions of mine".to_owned(), json!(versions));
    state
}

/// Which of these tokens are let in.
async fn let_in(api: &Api, tokens: &BTreeSet<String>) -> BTreeSet<String> {
    let mut let_in = BTreeSet::new();
    for token in tokens {
        if api.with_token(token).get("/v1/groups?limit=1").await.status == 200 {
            let_in.insert(token.clone());
        }
    }
    let_in
}

/// Every job of a group that was stored, due and never held back is delivered without another look at the clock.
async fn until_delivered(api: &Api, group: &str) {
    let path = format!("/v1/groups/{group}/stats");
    let are_delivered =
        |stats: &Reply| stats.status == 404 || (stats.json()["available"] == 0 && stats.json()["running"] == 0);
    eventually(&format!("the jobs of {group} are delivered"), async || api.get(&path).await, are_delivered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_that_changes_something_is_carried_out_whole_after_a_hang_up_at_any_await() {
    let (clock, receiver) = (ManualClock::new(), Receiver::start().await);
    receiver.on("/", [Answer::status(200)]);
    // Many of the tokens are revoked or rotated when they are tried.
    let setup = Setup::with_clock(&clock).set("auth.failure_burst", "10000");
    let host = setup.start().await;
    let (door, url) = (&host.door(), receiver.url("/"));
    let (mut number, mut tokens, mut cut) = (0, BTreeSet::new(), 0);
    for route in routes(&host.api).await {
        let steps = scene(&route, &url);
        let (last, before) = steps.split_last().unwrap();
        for polls in 0.. {
            assert!(polls < MOST_PAUSES, "{route} does not end");
            number += 1;
            let mut play = Play::new(number, clock.now().0 / 1_000);
            for step in before {
                let (status, answer) = whole(door.answer(play.request(step)).await).await;
                assert!((200..300).contains(&status), "{route}: {} {}: {status} {answer}", step.method, step.path);
                tokens.extend(answer.get("token").and_then(Value::as_str).map(str::to_owned));
                play.learn(&answer);
            }
            let answered = hung_up(door, play.request(last), polls).await;
            door.drained().await;
            if route.contains("jobs") || route.contains("run") || route.contains("retry") {
                let pulled = before.iter().any(|step| step.path.contains("leases"));
                if !pulled {
                    until_delivered(&host.api, &format!("g{number}")).await;
                }
            }
            let Some(answered) = answered else {
                cut += 1;
                continue;
            };
            let (status, answer) = whole(answered).await;
            // A job that was pulled has no request that could be decided again.
            let is_meant = (200..300).contains(&status) || (route.ends_with("/replay") && status == 409);
            assert!(is_meant, "{route}: {status} {answer}");
            tokens.extend(answer.get("token").and_then(Value::as_str).map(str::to_owned));
            break;
        }
    }
    assert!(cut > 50, "only {cut} requests were cut off");
    let (before, were_let_in) = (state(&host.api).await, let_in(&host.api, &tokens).await);
    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let again = setup.in_dir(&dir).start().await;
    let after = state(&again.api).await;
    for (what, before) in &before {
        assert_eq!(Some(before), after.get(what), "{what}");
    }
    assert_eq!(before.len(), after.len());
    assert_eq!(were_let_in, let_in(&again.api, &tokens).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_is_revoked_by_a_request_whose_client_hangs_up() {
    let host = Setup::new().start().await;
    for _ in 0..40 {
        let made = host.api.post("/v1/tokens", json!({"role": "viewer"})).await.expect(201);
        let (id, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap());
        let address = host.base.strip_prefix("http://").unwrap();
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            format!("DELETE /v1/tokens/{id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes()).await.unwrap();
        drop(socket);
        // The request that comes after it is answered in its turn: the writer knows one order.
        let second = host.api.send(host.api.request(Method::DELETE, &format!("/v1/tokens/{id}"))).await;
        assert!([204, 404].contains(&second.status));
        host.api.with_token(token).until_status("/v1/groups", 401).await;
    }
}
