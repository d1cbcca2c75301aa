//! What leads to each request that changes something: for tests that send every request of the API in some way.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Api};
use carillon_testing::guest::Guest;

/// One request; `{n}` is a number of its own, `{group}` a group of its own, other names are what earlier requests of the scene were answered.
pub struct Step {
    pub method: &'static str,
    pub path: &'static str,
    pub body: Value,
}

fn step(method: &'static str, path: &'static str, body: Value) -> Step {
    Step { method, path, body }
}

/// The requests that lead to one by this method to this route, which is the last of them.
#[expect(clippy::too_many_lines, reason = "a table of all routes")]
pub fn scene(route: &str, url: &str) -> Vec<Step> {
    let group = || step("PUT", "/v1/groups/{group}", json!({}));
    let job = |body: Value| step("POST", "/v1/groups/{group}/jobs", body);
    let sent = || json!({"url": url});
    let later = || json!({"url": url, "run_at": "+1h"});
    let pulled = || json!({"payload": 1});
    let lease = || step("POST", "/v1/groups/{group}/leases", json!({}));
    let version = || step("POST", "/v1/groups/{group}/policy/versions", json!({"retry": {"plugin": "backoff"}}));
    let key = || step("PUT", "/v1/keys/k{n}", json!({"secret": "x".repeat(32)}));
    let schedule =
        || step("PUT", "/v1/schedules/s{n}", json!({"group": "{group}", "cron": "@hourly", "job": {"url": url}}));
    let plugin = || step("PUT", "/v1/plugins/mine/versions/1.0.0-dev.{n}", Value::Null);
    let dead = || {
        let fail = step("POST", "/v1/leases/{lease}/fail", json!({"error": "no", "permanent": true}));
        [group(), job(pulled()), lease(), fail]
    };
    let (method, path) = route.split_once(' ').unwrap();
    let mut steps = Vec::new();
    let body = match (method, path) {
        ("POST", "/v1/groups/{group}/jobs") => {
            steps.push(group());
            sent()
        }
        ("POST", "/v1/groups/{group}/jobs/batch") => {
            steps.push(group());
            json!({"jobs": [sent(), sent()]})
        }
        ("DELETE" | "PATCH", "/v1/jobs/{id}")
        | ("POST", "/v1/jobs/{id}/reschedule" | "/v1/jobs/{id}/run" | "/v1/jobs/{id}/copy") => {
            steps.extend([group(), job(later())]);
            json!({"run_at": "+2h"})
        }
        ("POST", "/v1/jobs/{id}/retry") => {
            steps.extend(dead());
            Value::Null
        }
        ("POST", "/v1/jobs/{id}/attempts/{number}/replay") => {
            steps.extend([group(), job(pulled()), lease()]);
            steps.push(step("POST", "/v1/leases/{lease}/complete", Value::Null));
            json!({})
        }
        ("POST", "/v1/groups/{group}/bulk") => {
            steps.extend([group(), job(later())]);
            json!({"action": "cancel"})
        }
        ("POST", "/v1/groups/{group}/flush") => {
            steps.extend([group(), job(later())]);
            Value::Null
        }
        ("POST", "/v1/groups/{group}/redrive" | "/v1/groups/{group}/purge") => {
            steps.extend(dead());
            json!({})
        }
        ("POST", "/v1/groups/{group}/leases") => {
            steps.extend([group(), job(pulled())]);
            json!({})
        }
        ("POST", "/v1/leases/{token}/fail") => {
            steps.extend([group(), job(pulled()), lease()]);
            json!({"error": "no"})
        }
        ("POST", path) if path.starts_with("/v1/leases/") => {
            steps.extend([group(), job(pulled()), lease()]);
            Value::Null
        }
        ("POST", "/v1/groups/{group}/resume") => {
            steps.extend([group(), step("POST", "/v1/groups/{group}/pause", Value::Null)]);
            Value::Null
        }
        ("POST", "/v1/groups/{group}/pause") | ("DELETE", "/v1/groups/{group}") => {
            steps.push(group());
            Value::Null
        }
        ("PUT", "/v1/groups/{group}") => json!({"limits": {"concurrency": 7}}),
        ("POST", "/v1/groups/{group}/policy/unquarantine") => {
            steps.push(group());
            json!({})
        }
        ("POST", "/v1/groups/{group}/policy/versions") => {
            steps.push(group());
            json!({"retry": {"plugin": "backoff"}})
        }
        ("POST", "/v1/groups/{group}/policy/simulate") => {
            steps.push(group());
            json!({"job": {"url": url}})
        }
        ("POST", "/v1/groups/{group}/policy/promote" | "/v1/groups/{group}/policy/backtest")
        | ("PUT", "/v1/groups/{group}/policy/shadow") => {
            steps.extend([group(), version()]);
            json!({"version": "{number}"})
        }
        ("POST", "/v1/groups/{group}/policy/rollback") => {
            steps.extend([group(), version()]);
            steps.push(step("POST", "/v1/groups/{group}/policy/promote", json!({"version": "{number}"})));
            json!({})
        }
        ("DELETE", "/v1/groups/{group}/policy/shadow") => {
            steps.extend([group(), version()]);
            steps.push(step("PUT", "/v1/groups/{group}/policy/shadow", json!({"version": "{number}"})));
            Value::Null
        }
        ("PUT", "/v1/keys/{key}") => json!({"secret": "y".repeat(32)}),
        ("PATCH", "/v1/keys/{key}") => {
            steps.push(key());
            json!({"groups": ["one"]})
        }
        ("DELETE", "/v1/keys/{key}") => {
            steps.push(key());
            Value::Null
        }
        ("DELETE", "/v1/keys/{key}/versions/{version}") => {
            let next = json!({"secret": "z".repeat(32), "overlap": "until-removed"});
            steps.extend([key(), step("PUT", "/v1/keys/k{n}", next)]);
            Value::Null
        }
        ("PUT", "/v1/plugins/{plugin}/versions/{version}") => Value::Null,
        ("PATCH", "/v1/plugins/{plugin}/versions/{version}") => {
            steps.push(plugin());
            json!({"deprecated": "old"})
        }
        ("DELETE", "/v1/plugins/{plugin}/versions/{version}") => {
            steps.push(plugin());
            Value::Null
        }
        ("PUT", "/v1/schedules/{schedule}") => {
            steps.push(group());
            schedule().body
        }
        ("POST", "/v1/schedules/{schedule}/backfill") => {
            steps.extend([group(), schedule()]);
            json!({"from": "{past}", "to": "{now}"})
        }
        ("POST", "/v1/schedules/{schedule}/resume") => {
            steps.extend([group(), schedule(), step("POST", "/v1/schedules/s{n}/pause", Value::Null)]);
            Value::Null
        }
        ("PATCH", "/v1/groups/{group}") => {
            steps.push(group());
            json!({"limits": {"concurrency": 5}})
        }
        ("PATCH", "/v1/schedules/{schedule}") => {
            steps.extend([group(), schedule()]);
            json!({"max_runs": 7})
        }
        ("PATCH", "/v1/tenants/{tenant}") => {
            steps.push(step("PUT", "/v1/tenants/t{n}", json!({})));
            json!({"quota": {"concurrency": 3}})
        }
        ("POST", "/v1/tenants/{tenant}/resume") => {
            steps.push(step("PUT", "/v1/tenants/t{n}", json!({})));
            steps.push(step("POST", "/v1/tenants/t{n}/suspend", Value::Null));
            Value::Null
        }
        ("DELETE", "/v1/tenants/{tenant}") | ("POST", "/v1/tenants/{tenant}/suspend") => {
            steps.push(step("PUT", "/v1/tenants/t{n}", json!({})));
            Value::Null
        }
        (_, path) if path.starts_with("/v1/schedules/{schedule}") => {
            steps.extend([group(), schedule()]);
            Value::Null
        }
        ("PUT", "/v1/tenants/{tenant}") => json!({"quota": {"concurrency": 3}}),
        ("POST", "/v1/tokens") => json!({"name": "t{n}", "role": "viewer"}),
        ("DELETE", "/v1/tokens/{id}") | ("POST", "/v1/tokens/{id}/rotate") => {
            steps.push(step("POST", "/v1/tokens", json!({"name": "t{n}", "role": "viewer"})));
            Value::Null
        }
        _ => panic!("`{route}` changes something: say here what leads to it"),
    };
    let path = match path {
        "/v1/keys/{key}" => "/v1/keys/k{n}",
        "/v1/keys/{key}/versions/{version}" => "/v1/keys/k{n}/versions/1",
        "/v1/plugins/{plugin}/versions/{version}" => "/v1/plugins/mine/versions/1.0.0-dev.{n}",
        "/v1/tenants/{tenant}" => "/v1/tenants/t{n}",
        "/v1/jobs/{id}/attempts/{number}/replay" => "/v1/jobs/{id}/attempts/1/replay",
        path => Box::leak(path.replace("{schedule}", "s{n}").replace("{tenant}", "t{n}").into_boxed_str()),
    };
    let method = ["POST", "PUT", "PATCH", "DELETE"].into_iter().find(|known| *known == method).unwrap();
    steps.push(step(method, path, body));
    steps
}

/// One play of a scene, with names of its own.
pub struct Play {
    pub known: BTreeMap<String, Value>,
}

impl Play {
    /// With the numbers of a play, at this time in Unix seconds.
    pub fn new(number: usize, now: i64) -> Self {
        let known = [
            ("n", json!(number)),
            ("group", json!(format!("g{number}"))),
            ("now", json!(now)),
            ("past", json!(now - 3 * 3_600)),
        ];
        Self { known: known.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    pub fn fill(&self, text: &str) -> String {
        self.known.iter().fold(text.to_owned(), |text, (name, value)| {
            let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // A number as a whole value is a number.
            let text = if value.is_number() { text.replace(&format!("\"{{{name}}}\""), &plain) } else { text };
            text.replace(&format!("{{{name}}}"), &plain)
        })
    }

    /// The bytes of a request's body.
    pub fn body(&self, step: &Step) -> Vec<u8> {
        match &step.body {
            Value::Null if step.method == "PUT" => plugin(self.known["n"].as_u64().unwrap()),
            Value::Null => Vec::new(),
            body => self.fill(&body.to_string()).into_bytes(),
        }
    }

    pub fn request(&self, step: &Step) -> Request<Body> {
        let body = Body::from(self.body(step));
        let request = Request::builder().method(step.method).uri(self.fill(step.path));
        let request = request.header("authorization", format!("Bearer {ADMIN_TOKEN}"));
        request.header("content-type", "application/json").body(body).unwrap()
    }

    pub fn learn(&mut self, answer: &Value) {
        for (name, pointer) in
            [("id", "/id"), ("token", "/token"), ("lease", "/leases/0/token"), ("number", "/version")]
        {
            if let Some(value) = answer.pointer(pointer) {
                self.known.insert(name.to_owned(), value.clone());
            }
        }
        if let Some(lease) = self.known.get("lease").cloned() {
            self.known.insert("token".to_owned(), lease);
        }
    }
}

fn plugin(number: u64) -> Vec<u8> {
    let version = format!("1.0.0-dev.{number}");
    Guest::describing("mine", &version, "{}").role("judge", "(i32.const 128)").build()
}

/// The routes of the description that may change something.
pub async fn routes(api: &Api) -> Vec<String> {
    let document = api.get("/openapi.json").await.expect(200);
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, item): (&String, &Value)| {
        let methods =
            item.as_object().unwrap().keys().filter(|method| !["get", "parameters"].contains(&method.as_str()));
        methods.map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

/// The items of all pages of a list.
pub async fn all(api: &Api, path: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{path}?limit=100{cursor}")).await.expect(200);
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}
