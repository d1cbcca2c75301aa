//! A client of the API that hides nothing: status, headers and body of every answer can be looked at.

use axum::body::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::{eventually, soon, trusting};

/// Somebody who uses the API.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    tenant: Option<String>,
}

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    asked: String,
}

impl Api {
    pub fn new(base: &str, token: Option<&str>) -> Self {
        Self::over(trusting("ca.pem").build().unwrap(), base, token)
    }

    /// The same with connections of this client.
    pub fn over(http: reqwest::Client, base: &str, token: Option<&str>) -> Self {
        Self { http, base: base.to_owned(), token: token.map(str::to_owned), tenant: None }
    }

    /// The same server with another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same client of another server.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// An operator who acts for a tenant.
    pub fn for_tenant(&self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.to_owned()), ..self.clone() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("carillon-tenant", tenant);
        }
        request
    }

    /// Sends a request; a connection that breaks off fails the test.
    pub async fn send(&self, request: RequestBuilder) -> Reply {
        let request = request.build().unwrap();
        let asked = format!("{} {}", request.method(), request.url());
        let answered = async {
            let response = self.http.execute(request).await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            // A stream has no end.
            let is_stream = headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "text/event-stream");
            let body = if is_stream { Bytes::new() } else { response.bytes().await? };
            Ok::<_, reqwest::Error>((status, headers, body))
        };
        let (status, headers, body) =
            soon(&asked, answered).await.unwrap_or_else(|error| panic!("{asked}: no answer: {error:?}"));
        Reply { status, headers, body, asked }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// A request with a body as it is.
    pub async fn raw(&self, method: Method, path: &str, body: impl Into<reqwest::Body>) -> Reply {
        let request = self.request(method, path).header(CONTENT_TYPE, "application/json");
        self.send(request.body(body)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.raw(Method::POST, path, body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.raw(Method::PUT, path, body.to_string()).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.raw(Method::PATCH, path, body.to_string()).await
    }

    /// Makes or changes a group.
    pub async fn put_group(&self, name: &str, policy: Value) -> Value {
        self.put(&format!("/v1/groups/{name}"), policy).await.ok()
    }

    /// Makes a job and returns it.
    pub async fn post_job(&self, group: &str, job: Value) -> Value {
        self.post(&format!("/v1/groups/{group}/jobs"), job).await.expect(201)
    }

    /// Makes a job and returns its id.
    pub async fn job_id(&self, group: &str, job: Value) -> String {
        id_of(&self.post_job(group, job).await)
    }

    pub async fn job(&self, id: &str) -> Value {
        self.get(&format!("/v1/jobs/{id}")).await.expect(200)
    }

    pub async fn attempts(&self, id: &str) -> Vec<Value> {
        self.get(&format!("/v1/jobs/{id}/attempts")).await.items()
    }

    pub async fn stats(&self, group: &str) -> Value {
        self.get(&format!("/v1/groups/{group}/stats")).await.expect(200)
    }

    /// Waits until a job is as `wanted` says.
    pub async fn until(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("job {id} {what}"), async || self.job(id).await, wanted).await
    }

    /// Waits until a job is in `state`.
    pub async fn until_state(&self, id: &str, state: &str) -> Value {
        let ended = self.until(id, state, |job| job["state"] == state || !job["finished_at"].is_null()).await;
        assert_eq!(ended["state"], state, "{ended}");
        ended
    }

    /// Waits until a job has spent `count` attempts and waits for the next.
    pub async fn until_retry(&self, id: &str, count: u32) -> Value {
        let waits = |job: &Value| job["state"] == "scheduled" && job["attempt_count"] == count;
        self.until(id, &format!("has spent {count} attempts"), waits).await
    }

    /// Waits until what `path` shows is as `wanted` says.
    pub async fn until_shown(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{path} shows it"), async || self.get(path).await.expect(200), wanted).await
    }

    /// Waits until `path` is answered with `status`.
    pub async fn until_status(&self, path: &str, status: u16) -> Reply {
        let what = format!("{path} is answered with {status}");
        eventually(&what, async || self.get(path).await, |reply| reply.status == status).await
    }

    /// Waits until a group's numbers are as `wanted` says.
    pub async fn until_stats(&self, group: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("group {group}: {what}"), async || self.stats(group).await, wanted).await
    }

    /// Waits until exactly `count` jobs of a group have succeeded.
    pub async fn until_succeeded(&self, group: &str, count: usize) {
        self.until_stats(group, &format!("{count} jobs succeed"), |stats| stats["succeeded"] == count).await;
    }

    /// Waits until no job of a group can still change.
    pub async fn until_ended(&self, group: &str) {
        self.until_stats(group, "all jobs end", |stats| stats["scheduled"] == 0 && stats["running"] == 0).await;
    }

    /// The value of a metric; 0 where its labels have not been seen yet.
    pub async fn metric(&self, name: &str) -> u64 {
        let metrics = self.get("/metrics").await;
        let value = metrics.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// Makes a tenant with its own administrator.
    pub async fn tenant(&self, name: &str) -> Self {
        self.put(&format!("/v1/tenants/{name}"), json!({})).await.ok();
        self.with_token(&self.token(json!({"tenant": name, "role": "admin"})).await)
    }

    /// Makes a token and returns it.
    pub async fn token(&self, token: Value) -> String {
        let made = self.post("/v1/tokens", token).await.expect(201);
        made["token"].as_str().expect("a token is shown when it is made").to_owned()
    }
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("an answer is UTF-8")
    }

    /// The answer, which must have this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.asked, self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The answer, which must be a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{}: {} {}", self.asked, self.status, self.text());
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {:?}", self.asked, self.body))
    }

    /// The entries of a list.
    #[track_caller]
    pub fn items(&self) -> Vec<Value> {
        self.expect(200)["items"].as_array().expect("a list has items").clone()
    }

    /// The problem, which must have this status and all that a problem has.
    #[track_caller]
    pub fn problem(&self, status: u16) -> Value {
        let about = format!("{}: {} {:?}", self.asked, self.status, self.body);
        assert_eq!(self.status, status, "{about}");
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json", "{about}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{about}");
        for field in ["type", "title", "detail"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {about}");
        }
        problem
    }

    /// The problem's pointer, too.
    #[track_caller]
    pub fn problem_at(&self, status: u16, pointer: &str) -> Value {
        let problem = self.problem(status);
        assert_eq!(problem["pointer"], pointer, "{}: {problem}", self.asked);
        problem
    }
}

/// The id of a thing that was answered.
pub fn id_of(thing: &Value) -> String {
    thing["id"].as_str().expect("it has an id").to_owned()
}
