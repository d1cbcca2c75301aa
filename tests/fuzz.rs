//! Whatever is sent to whatever route: an answer that is no 5xx, always.

use axum::body::Bytes;
use reqwest::Method;
use serde_json::json;

use crate::support::{TestHost, closed_operations};

/// Requests to each route.
const ROUNDS: u32 = 16;

/// The seed; a failure names the round, and the same seed gives the same bodies.
const SEED: u64 = 0x00ca_7111_0000_0001;

/// Bodies that are good somewhere.
const SEEDS: [&str; 11] = [
    r#"{"url": "http://127.0.0.1:1/", "headers": {"X-A": "b"}, "payload": {"a": [1, 2.5e3, null]}, "run_at": "+90s", "name": "n",
        "metadata": {"k": "v"}, "policy": {"retry": {"max_attempts": 3}}, "limits": {"timeout": "1s", "ttl": "1h"}}"#,
    r#"{"jobs": [{"url": "http://127.0.0.1:1/", "payload_text": "x", "run_at": 1795168800}, {"url": "https://a/", "payload_base64": "AA=="}]}"#,
    r#"{"judge": {"plugin": "expected-status", "config": {"expect": ["2xx", 404, "500-599"]}}, "limits": {"rate": "10/s"}}"#,
    r#"{"encode": [{"plugin": "base64-envelope"}], "sign": {"plugin": "werkzeug-cookie", "keys": ["k"]}}"#,
    r#"{"job": {"url": "http://127.0.0.1:1/"}, "responses": [{"status": 500}, {"error": "timeout"}], "failures": 3, "seed": 7, "now": "+1s"}"#,
    r#"{"group": "x", "cron": "*/5 1-4 * * mon,3", "time_zone": "Europe/Berlin", "start": "+1d", "end": 1995168800, "max_runs": 3, "jitter": "5s",
        "catch_up": "1h", "job": {"url": "http://127.0.0.1:1/"}}"#,
    r#"{"from": 1795168800, "to": "2026-11-20T10:00:00Z"}"#,
    r#"{"version": 1, "percent": 10, "max_faults": 0.05, "max_differences": 0.1, "why": "because"}"#,
    r#"{"encode": null, "judge": {"plugin": "expected-status"}, "why": "a candidate", "deprecated": null}"#,
    r#"{"secret": "s", "kind": "secret", "secret_base64": "cw=="}"#,
    r#"{"tenant": "default", "name": "n", "role": "viewer", "defaults": {"limits": {"ttl": "1h"}}}"#,
];

/// Things that parsers stumble over.
const TOKENS: [&str; 16] = [
    "null",
    "-1",
    "1e999",
    "18446744073709551616",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\u{202e}\"",
    "[[[[[[[[[[[[[[[[",
    "{\"a\":",
    "\"",
    "\\",
    "true",
    "\"9999-12-31T23:59:59.999999999Z\"",
    "\"-9999-01-01T00:00:00Z\"",
    "\"+18446744073709551615y\"",
    "1e-400",
];

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }

    fn mutated(&mut self, text: &str) -> Bytes {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..self.below(4) {
            let at = self.below(bytes.len().max(1)).min(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, u8::try_from(self.below(256)).unwrap()),
                2 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                3 => {
                    let end = (at + self.below(12)).min(bytes.len());
                    bytes.drain(at..end);
                }
                4 => {
                    let repeated = bytes[at..].to_vec();
                    bytes.extend(repeated);
                }
                _ => drop(bytes.splice(at..at, TOKENS[self.below(TOKENS.len())].bytes())),
            }
        }
        bytes.into()
    }

    /// A value of a well-formed body is replaced, so that what is behind the parser is reached, too.
    fn replaced(&mut self, text: &str) -> Bytes {
        let values: Vec<_> = text.match_indices(": ").map(|(at, _)| at + 2).collect();
        let at = values[self.below(values.len())];
        let end = text[at..].find([',', '}', ']']).map_or(text.len(), |len| at + len);
        format!("{}{}{}", &text[..at], TOKENS[self.below(TOKENS.len())], &text[end..]).into()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_body_on_any_route_is_answered_with_a_5xx_or_not_at_all() {
    let host = TestHost::start().await;
    host.api.put_group("x", json!({})).await;
    let mut random = Random(SEED);
    for (method, path) in closed_operations(&host.api).await {
        for round in 0..ROUNDS {
            let seed = SEEDS[random.below(SEEDS.len())];
            let body = if round % 2 == 0 { random.mutated(seed) } else { random.replaced(seed) };
            // An administrator's own tenant must not be broken for the routes that follow.
            if path.starts_with("/v1/tenants/") && method == Method::PUT && body.starts_with(b"{\"defaults") {
                continue;
            }
            let reply = host.api.raw(method.clone(), &path, body.clone()).await;
            let about = || format!("{method} {path}, round {round}: {} {:?}\n{body:?}", reply.status, reply.body);
            assert!((200..500).contains(&reply.status), "{}", about());
            if reply.status >= 400 {
                reply.problem(reply.status);
            }
        }
    }
    let document = host.api.get("/v1/groups").await;
    document.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strange_paths_and_queries_are_answered() {
    let host = TestHost::start().await;
    let strange = ["%00", "%FF", "..%2f..", "%25", "a;b", "'%20OR%201=1--", "%F0%9F%94%94", "%0d%0aX-A:%20b", "x%2500"];
    for part in strange {
        for path in [
            format!("/v1/groups/{part}"),
            format!("/v1/jobs/{part}/attempts"),
            format!("/v1/plugins/{part}/versions/{part}"),
            format!("/v1/groups?cursor={part}&limit={part}"),
            format!("/v1/tokens?cursor={part}"),
            format!("/{part}"),
        ] {
            let reply = host.api.get(&path).await;
            assert!((200..500).contains(&reply.status), "{path}: {} {:?}", reply.status, reply.body);
            if reply.status >= 400 {
                reply.problem(reply.status);
            }
        }
    }
}
