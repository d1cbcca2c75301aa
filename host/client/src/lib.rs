//! The Rust client of Carillon's REST API, for the command line and the benchmarks.
//!
//! Role: sends requests with a token, parses the responses, and turns failures into errors of one line ([`ClientError`]).
//!
//! Not: a part of the server; it shares no type with it.
//!
//! Invariants: it builds without any crate of the server. JSON of users and of the server keeps its text.
//!
//! May import: none of our crates.

pub mod answer;
pub mod bodies;
pub mod problem;
pub mod text;
pub mod tls_files;

use std::fmt;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::to_raw_value;

use self::answer::{Answer, Members};
use self::bodies::{CreatedJob, CreatedJobs, JobInput, Stats};
use self::problem::Problem;
use self::text::visible;
use self::tls_files::{TlsFileError, TlsFiles};

/// Maximum wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum wait for a response.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum wait for the response to an upload, which may wait for other uploads and then for the compiler.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// Timeout of a stream: longer than any client follows one.
const NO_END: Duration = Duration::from_secs(3_660 * 86_400);
/// Maximum number of characters of a foreign response that an error shows.
const EXCERPT: usize = 200;

/// Client of one server, with one token. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
    tenant: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

/// Reason why a call failed. Each prints as one line that says what to do, where that is known.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is not a valid URL.
    #[error("`{0}` is not the URL of a server, such as http://127.0.0.1:7070")]
    Address(String),
    /// A name cannot be part of a path.
    #[error("`{0}` cannot be a name")]
    Name(String),
    /// This machine cannot make requests, for instance because it has no root certificates.
    #[error("the HTTP client cannot be created: {0}")]
    Setup(reqwest::Error),
    /// A file with certificates cannot be used.
    #[error(transparent)]
    TlsFile(#[from] TlsFileError),
    /// The request's body cannot be serialized to JSON.
    #[error("the request cannot be written as JSON: {0}")]
    Unwritable(serde_json::Error),
    /// No server responded.
    #[error(
        "no server responds at {server} ({reason}): start one with `carillon serve`, or select another with --server"
    )]
    Unreachable {
        /// Address of the server.
        server: String,
        /// Message of the operating system.
        reason: String,
    },
    /// The response did not arrive, or not completely: whether the server carried out the request is unknown.
    #[error("the response of {server} did not arrive: {reason}")]
    Lost {
        /// Address of the server.
        server: String,
        /// Description of the failure.
        reason: String,
    },
    /// The server rejected the request.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The response does not come from this API.
    #[error("{server} responded with {status} and an unexpected body: {body}")]
    Foreign {
        /// Address of the server.
        server: String,
        /// Status of the response.
        status: StatusCode,
        /// Beginning of the body, or the reason why it could not be read.
        body: String,
    },
}

impl Client {
    /// Makes a client of the server at `server`, an `http` or `https` URL.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::Address`], or [`ClientError::Setup`] if this machine cannot verify an `https` server.
    pub fn new(server: &str, token: Option<String>) -> Result<Self, ClientError> {
        Self::with_tls(TlsFiles::default(), server, token)
    }

    /// Makes a client with files for an `https` server.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Self::new`], or [`ClientError::TlsFile`].
    pub fn with_tls(files: TlsFiles<'_>, server: &str, token: Option<String>) -> Result<Self, ClientError> {
        let base = Url::parse(server).map_err(|_| ClientError::Address(server.to_owned()))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(ClientError::Address(server.to_owned()));
        }
        // An error means that another part of the program has already chosen a provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT);
        if base.scheme() == "http" {
            // For `http`, the system's root certificates are not needed, and a small machine may lack them.
            http = http.tls_certs_only([]);
        } else {
            if let Some(path) = files.authorities {
                http = http.tls_certs_merge(tls_files::read_authorities(path)?);
            }
            if let Some(path) = files.certificate {
                http = http.identity(tls_files::read_identity(path)?);
            }
        }
        let http = http.redirect(reqwest::redirect::Policy::none()).build().map_err(ClientError::Setup)?;
        Ok(Self { http, base, token, tenant: None })
    }

    /// Returns a client of the same server with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Returns a client of the same server, for another tenant than the token's own.
    #[must_use]
    pub fn for_tenant(&self, tenant: Option<String>) -> Self {
        Self { tenant, ..self.clone() }
    }

    /// Creates one job.
    ///
    /// # Errors
    ///
    /// Returns a [`ClientError`]; so do all calls below.
    pub async fn create_job(&self, group: &str, job: &JobInput) -> Result<CreatedJob, ClientError> {
        self.post(&["groups", group, "jobs"], job).await
    }

    /// Creates all of `jobs` or none; returns their ids in the same order.
    pub async fn create_jobs<J: Serialize>(&self, group: &str, jobs: &[J]) -> Result<Vec<String>, ClientError> {
        // A parsed value would not keep the text of the jobs.
        let jobs = to_raw_value(jobs).map_err(ClientError::Unwritable)?;
        let body: Members = [("jobs".to_owned(), jobs)].into_iter().collect();
        let created: CreatedJobs = self.post(&["groups", group, "jobs", "batch"], &body).await?;
        Ok(created.ids)
    }

    /// Returns the number of a group's jobs in each state.
    pub async fn stats(&self, group: &str) -> Result<Stats, ClientError> {
        self.get(&["groups", group, "stats"], &[]).await
    }

    /// Creates or replaces a group.
    pub async fn put_group(
        &self,
        group: &str,
        policy: &impl Serialize,
        why: Option<String>,
    ) -> Result<Answer, ClientError> {
        let query: Vec<_> = why.into_iter().map(|why| ("why", why)).collect();
        self.put_to(&["groups", group], &query, policy).await
    }

    /// Creates or replaces a key.
    pub async fn put_key(&self, name: &str, key: &impl Serialize) -> Result<Answer, ClientError> {
        self.put(&["keys", name], key).await
    }

    /// Sends `GET /v1/…`. As in all of these, `path` holds the segments after `/v1`, not yet escaped.
    pub async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, ClientError> {
        self.exchange(self.http.get(self.url_with(path, query)?)).await
    }

    /// Sends `GET /v1/…` for a response that is read as it arrives: bytes, or a stream of events. `seen` is the id of the last event that the
    /// caller has seen.
    pub async fn open(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        seen: Option<&str>,
    ) -> Result<Response, ClientError> {
        let mut request = self.http.get(self.url_with(path, query)?).timeout(NO_END);
        if let Some(id) = seen {
            request = request.header("last-event-id", id);
        }
        let request = self.authorized(request).header(ACCEPT, "text/event-stream, */*");
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.bytes().await.map_err(|error| self.failed(&error))?;
        self.understand::<Answer>(status, &body)
            .and_then(|_| Err(ClientError::Foreign { server: self.base.to_string(), status, body: String::new() }))
    }

    /// Sends `POST /v1/…` with a JSON body.
    pub async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, ClientError> {
        self.exchange(self.http.post(self.url(path)?).json(body)).await
    }

    /// Sends `POST /v1/…` with an idempotency key: the server carries out repeated requests once.
    pub async fn post_once<T: DeserializeOwned>(
        &self,
        path: &[&str],
        key: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.exchange(self.http.post(self.url(path)?).header("idempotency-key", key).json(body)).await
    }

    /// Sends `POST /v1/…?…` with a JSON body.
    pub async fn post_to(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        body: &impl Serialize,
    ) -> Result<Answer, ClientError> {
        self.exchange(self.http.post(self.url_with(path, query)?).json(body)).await
    }

    /// Sends `PATCH /v1/…?…` with a JSON body.
    pub async fn patch(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        body: &impl Serialize,
    ) -> Result<Answer, ClientError> {
        self.exchange(self.http.patch(self.url_with(path, query)?).json(body)).await
    }

    /// Sends `DELETE /v1/…?…`.
    pub async fn delete_from(&self, path: &[&str], query: &[(&str, String)]) -> Result<Answer, ClientError> {
        self.exchange(self.http.delete(self.url_with(path, query)?)).await
    }

    /// Sends `POST /v1/…` without a body.
    pub async fn act(&self, path: &[&str]) -> Result<Answer, ClientError> {
        self.exchange(self.http.request(Method::POST, self.url(path)?)).await
    }

    /// Sends `PUT /v1/…` with a JSON body.
    pub async fn put<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, ClientError> {
        self.exchange(self.http.put(self.url(path)?).json(body)).await
    }

    /// Sends `PUT /v1/…?…` with a JSON body.
    pub async fn put_to(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        body: &impl Serialize,
    ) -> Result<Answer, ClientError> {
        self.exchange(self.http.put(self.url_with(path, query)?).json(body)).await
    }

    /// Sends `PUT /v1/…` with the bytes of a component, and optionally an Ed25519 signature of them in base64.
    pub async fn put_component(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        component: Vec<u8>,
        signature: Option<&str>,
    ) -> Result<Answer, ClientError> {
        let request = self.http.put(self.url_with(path, query)?).timeout(UPLOAD_TIMEOUT);
        let mut request = request.header(CONTENT_TYPE, "application/wasm");
        if let Some(signature) = signature {
            request = request.header("carillon-signature", signature);
        }
        self.exchange(request.body(component)).await
    }

    /// Sends `DELETE /v1/…`.
    pub async fn delete(&self, path: &[&str]) -> Result<Answer, ClientError> {
        self.exchange(self.http.delete(self.url(path)?)).await
    }

    /// Sends `DELETE /v1/…?query`.
    pub async fn delete_with(&self, path: &[&str], query: &[(&str, String)]) -> Result<Answer, ClientError> {
        self.exchange(self.http.delete(self.url_with(path, query)?)).await
    }

    fn url_with(&self, path: &[&str], query: &[(&str, String)]) -> Result<Url, ClientError> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    fn url(&self, path: &[&str]) -> Result<Url, ClientError> {
        if let Some(name) = path.iter().find(|segment| matches!(**segment, "" | "." | "..")) {
            return Err(ClientError::Name((*name).to_owned()));
        }
        let mut url = self.base.clone();
        let mut segments = url.path_segments_mut().map_err(|()| ClientError::Address(self.base.to_string()))?;
        segments.pop_if_empty().push("v1").extend(path);
        drop(segments);
        Ok(url)
    }

    async fn exchange<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let request = self.authorized(request);
        let response = request.header(ACCEPT, "application/json").send().await.map_err(|error| self.failed(&error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.failed(&error))?;
        self.understand(status, &body)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let request = match &self.tenant {
            Some(tenant) => request.header("carillon-tenant", tenant),
            None => request,
        };
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// Returns the value of a successful response, where an empty body counts as `null`; the problem of any other response.
    fn understand<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        let foreign = |body: String| ClientError::Foreign { server: self.base.to_string(), status, body };
        if status.is_success() {
            let body = if body.is_empty() { b"null" } else { body };
            return serde_json::from_slice(body).map_err(|error| foreign(error.to_string()));
        }
        match serde_json::from_slice::<Problem>(body) {
            Ok(problem) if !problem.title.is_empty() || !problem.detail.is_empty() => {
                Err(ClientError::Refused(Box::new(Problem { status: status.as_u16(), ..problem })))
            }
            _ => Err(foreign(
                visible(&String::from_utf8_lossy(body).chars().take(EXCERPT).collect::<String>()).into_owned(),
            )),
        }
    }

    fn failed(&self, error: &reqwest::Error) -> ClientError {
        let (server, reason) = (self.base.to_string(), root_cause(error));
        if error.is_connect() {
            ClientError::Unreachable { server, reason }
        } else {
            ClientError::Lost { server, reason }
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;
    use axum::http::header::AUTHORIZATION;
    use axum::response::IntoResponse;
    use axum::routing::{get, post, put};

    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::bodies::Payload;
    use super::*;

    /// Makes a client, with the token `t`, of a server with these routes.
    async fn client_of(routes: Router) -> Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = format!("http://{}/base/", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, Router::new().nest("/base/v1", routes)).await });
        Client::new(&server, Some("t".into())).unwrap()
    }

    async fn refused(status: u16, body: &'static str) -> String {
        let status = StatusCode::from_u16(status).unwrap();
        let routes = Router::new().route("/jobs/x", get(move || async move { (status, body) }));
        client_of(routes).await.get::<Value>(&["jobs", "x"], &[]).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn names_are_escaped_and_the_token_is_sent() {
        let echo = |request: Request| async move {
            let token = request.headers().get(AUTHORIZATION).cloned().unwrap();
            (StatusCode::OK, format!("\"{} {}\"", request.uri(), token.to_str().unwrap())).into_response()
        };
        let client = client_of(Router::new().route("/groups/{name}", get(echo))).await;
        let answer: Value = client.get(&["groups", "a/b c"], &[("cursor", "x&y".into())]).await.unwrap();
        assert_eq!(answer, "/groups/a%2Fb%20c?cursor=x%26y Bearer t");
        assert!(matches!(client.delete(&["groups", ".."]).await, Err(ClientError::Name(_))));
    }

    #[tokio::test]
    async fn problems_are_one_clear_line() {
        let body = r#"{"title": "Invalid input", "detail": "not a URL", "errors": [{"pointer": "/url", "detail": "no host"}]}"#;
        assert_eq!(refused(422, body).await, "Invalid input: not a URL: /url no host");
        let body = r#"{"title": "Invalid input", "detail": "not a\nURL", "pointer": "/url"}"#;
        assert_eq!(refused(422, body).await, "Invalid input: not a\\nURL: /url");
        let said = refused(401, r#"{"title": "Unauthorized"}"#).await;
        assert_eq!(said, "Unauthorized: pass a token with --token or CARILLON_TOKEN");
        assert!(
            refused(502, "<html>").await.ends_with("responded with 502 Bad Gateway and an unexpected body: <html>")
        );
        assert!(refused(200, "<html>").await.contains("an unexpected body"));
    }

    #[tokio::test]
    async fn a_missing_server_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = Client::new(&server, None).unwrap().stats("g").await.unwrap_err().to_string();
        assert!(error.contains("no server responds at") && error.contains("carillon serve"), "{error}");
        assert!(matches!(Client::new("localhost:7070", None), Err(ClientError::Address(_))));
    }

    #[tokio::test]
    async fn the_typed_calls_speak_the_api() {
        let routes = Router::new()
            .route(
                "/groups/g/jobs",
                post(|body: axum::Json<Value>| async move {
                    assert_eq!(body.0, json!({"url": "http://x", "payload": {"a": 1}}));
                    (StatusCode::CREATED, r#"{"id": "i", "state": "scheduled", "run_at": "2026-11-20T10:00:00.250Z"}"#)
                }),
            )
            .route(
                "/groups/g/jobs/batch",
                post(|body: axum::Json<Value>| async move {
                    assert_eq!(body.0, json!({"jobs": [{"url": "http://x"}]}));
                    (StatusCode::CREATED, r#"{"ids": ["i"]}"#)
                }),
            )
            .route("/groups/g/stats", get(|| async { r#"{"scheduled": 2, "succeeded": 1}"# }))
            .route("/keys/k", put(|| async { StatusCode::NO_CONTENT }));
        let client = client_of(routes).await;
        let job = JobInput { url: Some("http://x".into()), ..JobInput::default() };
        assert_eq!(client.create_jobs("g", std::slice::from_ref(&job)).await.unwrap(), ["i"]);
        let job =
            JobInput { payload: Some(Payload::Json(RawValue::from_string(r#"{"a": 1}"#.to_owned()).unwrap())), ..job };
        assert_eq!(client.create_job("g", &job).await.unwrap().state, "scheduled");
        assert_eq!(client.stats("g").await.unwrap().scheduled, 2);
        client.put_key("k", &json!({"secret": "s"})).await.unwrap();
    }
}
