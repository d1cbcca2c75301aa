//! HTTP client of a registry, by the OCI distribution specification.
//!
//! Credentials go only to the registry and to the token server that it names, and not to the places to which it redirects an upload or a
//! blob. Requests are encrypted, except to this machine or where the user has allowed otherwise.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::credentials::Credentials;
use super::digest;
use super::login::{Challenge, Login};
use super::reference::{Reference, is_digest};
use carillon_client::text::visible;

/// Maximum wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum wait for a part of a response.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of redirects.
const REDIRECTS: usize = 5;
/// Maximum size of a response that is not a component, in bytes.
const ANSWER_LIMIT: u64 = 4 << 20;
/// Maximum number of characters of a registry's response that an error shows.
const EXCERPT: usize = 300;

/// Name of this program at token servers.
const CLIENT_ID: &str = "carillon";

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// Repository of a registry.
pub(super) struct Registry {
    http: reqwest::Client,
    /// Scheme, `http` or `https`, and host.
    origin: Url,
    repository: String,
    credentials: Option<Credentials>,
    /// Authentication to send, once it is known.
    known_as: Option<KnownAs>,
}

#[derive(Clone)]
enum KnownAs {
    User { username: String, password: String },
    Bearer(String),
}

impl KnownAs {
    fn put(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::User { username, password } => request.basic_auth(username, Some(password)),
            Self::Bearer(token) => request.bearer_auth(token),
        }
    }
}

impl Registry {
    pub(super) fn new(reference: &Reference, login: &Login) -> anyhow::Result<Self> {
        let mut origin = Url::parse(&format!("https://{}/", reference.host))?;
        if login.plain_http || is_this_machine(&origin) {
            origin = Url::parse(&format!("http://{}/", reference.host))?;
        }
        Ok(Self {
            http: client(Transport::new(&origin))?,
            origin,
            repository: reference.repository.clone(),
            credentials: login.credentials(&reference.host)?,
            known_as: None,
        })
    }

    /// Uploads a blob, unless the registry has it.
    pub(super) async fn put_blob(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        let digest = digest(&bytes);
        let there = self.ask(&Method::HEAD, &self.url(&["blobs", &digest])?, HeaderMap::new(), Vec::new()).await?;
        if there.status() == StatusCode::OK {
            return Ok(());
        }
        let begun =
            self.ask(&Method::POST, &self.url(&["blobs", "uploads", ""])?, HeaderMap::new(), Vec::new()).await?;
        let begun = expect(begun, &[StatusCode::ACCEPTED]).await?;
        let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let mut upload = begun.url().join(location.context("the registry returned no upload location")?)?;
        upload.query_pairs_mut().append_pair("digest", &digest);
        let done = self.ask(&Method::PUT, &upload, typed("application/octet-stream")?, bytes).await?;
        expect(done, &[StatusCode::CREATED]).await.map(drop)
    }

    /// Stores a manifest under a tag.
    pub(super) async fn put_manifest(&mut self, tag: &str, media_type: &str, manifest: Vec<u8>) -> anyhow::Result<()> {
        let digest = digest(&manifest);
        let stored = self.ask(&Method::PUT, &self.url(&["manifests", tag])?, typed(media_type)?, manifest).await?;
        let stored = expect(stored, &[StatusCode::CREATED, StatusCode::OK]).await?;
        match stored.headers().get(CONTENT_DIGEST) {
            Some(other) if other != digest.as_str() => {
                bail!("the registry stored something else: {other:?}, not {digest}")
            }
            _ => Ok(()),
        }
    }

    /// Returns a manifest by its tag, or by its digest, which is verified.
    pub(super) async fn manifest(&mut self, pointer: &str, media_type: &str) -> anyhow::Result<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, media_type.parse()?);
        let found = self.ask(&Method::GET, &self.url(&["manifests", pointer])?, headers, Vec::new()).await?;
        let found = expect(found, &[StatusCode::OK]).await?;
        let said = found.headers().get(CONTENT_DIGEST).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let bytes = read(found, ANSWER_LIMIT).await?;
        let asked = is_digest(pointer).then(|| pointer.to_owned());
        for expected in asked.into_iter().chain(said.filter(|it| is_digest(it))) {
            check("the manifest", &bytes, &expected)?;
        }
        Ok(bytes)
    }

    /// Returns a blob of `size` bytes, whose digest is verified.
    pub(super) async fn blob(&mut self, expected: &str, size: u64) -> anyhow::Result<Vec<u8>> {
        let found = self.ask(&Method::GET, &self.url(&["blobs", expected])?, HeaderMap::new(), Vec::new()).await?;
        let bytes = read(expect(found, &[StatusCode::OK]).await?, size).await?;
        ensure!(
            bytes.len() as u64 == size,
            "the component has {} bytes, but the manifest announces {size}",
            bytes.len()
        );
        check("the component", &bytes, expected)?;
        Ok(bytes)
    }

    fn url(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.origin.clone();
        let mut segments =
            url.path_segments_mut().map_err(|()| anyhow!("{} is not the address of a registry", self.origin))?;
        segments.pop_if_empty().push("v2").extend(self.repository.split('/')).extend(path);
        drop(segments);
        Ok(url)
    }

    /// Makes a request, and repeats it once if the registry requires authentication.
    async fn ask(&mut self, method: &Method, url: &Url, headers: HeaderMap, body: Vec<u8>) -> anyhow::Result<Response> {
        let in_clear = url.scheme() != "https" && self.origin.scheme() == "https";
        ensure!(!in_clear, "the registry refers to {}, which does not use TLS", url.origin().ascii_serialization());
        let body = bytes::Bytes::from(body);
        let request = |known_as: Option<&KnownAs>| {
            let request = self.http.request(method.clone(), url.clone()).headers(headers.clone()).body(body.clone());
            match known_as.filter(|_| url.origin() == self.origin.origin()) {
                Some(known_as) => known_as.put(request),
                None => request,
            }
        };
        let answer = request(self.known_as.as_ref()).send().await.map_err(failed)?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // Credentials are the registry's: only its own origin may say where they are to be shown. A host that it refers or redirects to may not
        // (CVE-2020-15157 in containerd).
        let is_own = answer.url().origin() == self.origin.origin();
        let Some(challenge) = Challenge::from_headers(answer.headers()).filter(|_| is_own) else { return Ok(answer) };
        let known_as = match challenge {
            Challenge::Basic => match self.credentials.clone() {
                Some(Credentials::Password { username, password }) => KnownAs::User { username, password },
                Some(Credentials::IdentityToken(_)) => {
                    bail!("{} requires a password, but only an identity token is stored for it", self.origin)
                }
                None => bail!("{} requires authentication: use --username or `docker login`", self.origin),
            },
            Challenge::Bearer { realm, service, scope } => KnownAs::Bearer(self.token(&realm, service, scope).await?),
        };
        let answer = request(Some(&known_as)).send().await.map_err(failed)?;
        self.known_as = Some(known_as);
        Ok(answer)
    }

    /// Gets a token from the server that the registry names.
    async fn token(&self, realm: &str, service: Option<String>, scope: Option<String>) -> anyhow::Result<String> {
        let mut url =
            Url::parse(realm).with_context(|| format!("{realm:?}, the registry's token server, is not a URL"))?;
        let in_clear = url.scheme() != "https";
        ensure!(!in_clear || self.origin.scheme() == "http", "{url}, the registry's token server, does not use TLS");
        let parameters: Vec<_> = [("service", service), ("scope", scope)]
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        let request = match &self.credentials {
            // The password flow of OAuth 2.0 is not used: a GET is what all token servers know.
            Some(Credentials::IdentityToken(token)) => {
                let form = form(&parameters, token)?;
                self.http.post(url.clone()).headers(typed("application/x-www-form-urlencoded")?).body(form)
            }
            credentials => {
                for (key, value) in &parameters {
                    url.query_pairs_mut().append_pair(key, value);
                }
                let request = self.http.get(url.clone());
                match credentials {
                    Some(Credentials::Password { username, password }) => request.basic_auth(username, Some(password)),
                    _ => request,
                }
            }
        };
        let answer = expect(request.send().await.map_err(failed)?, &[StatusCode::OK]).await?;
        let answer: Value = serde_json::from_slice(&read(answer, ANSWER_LIMIT).await?).unwrap_or_default();
        let token = answer["token"].as_str().or_else(|| answer["access_token"].as_str());
        Ok(token.with_context(|| format!("{url} returned no token"))?.to_owned())
    }
}

/// Returns the form in which an identity token is exchanged for an access token (RFC 6749, section 6).
fn form(parameters: &[(&str, String)], token: &str) -> anyhow::Result<String> {
    // The query of a URL has the same form.
    let mut url = Url::parse("form:/")?;
    url.query_pairs_mut()
        .extend_pairs(parameters)
        .append_pair("client_id", CLIENT_ID)
        .append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", token);
    Ok(url.query().unwrap_or_default().to_owned())
}

fn typed(media_type: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, media_type.parse()?);
    Ok(headers)
}

fn is_this_machine(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

/// Transport of requests to a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// TLS, also after redirects.
    Tls,
    /// Plain HTTP, at first.
    Plain,
}

impl Transport {
    fn new(origin: &Url) -> Self {
        if origin.scheme() == "http" { Self::Plain } else { Self::Tls }
    }
}

fn client(transport: Transport) -> anyhow::Result<reqwest::Client> {
    // An error means that another part of the program has already chosen a provider.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redirects = Policy::custom(move |attempt| {
        if attempt.previous().len() > REDIRECTS {
            attempt.error("too many redirects")
        } else if transport == Transport::Tls && attempt.url().scheme() != "https" {
            attempt.error("redirected to a URL without TLS")
        } else {
            attempt.follow()
        }
    });
    let client = || reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT);
    let client = match transport {
        Transport::Tls => client(),
        // The system's root certificates are not needed, and a small machine may lack them.
        Transport::Plain => client().tls_certs_only([]),
    };
    client.redirect(redirects).build().context("the HTTP client cannot be created")
}

/// Returns a response with one of these statuses; of any other, an error with the registry's message.
async fn expect(answer: Response, good: &[StatusCode]) -> anyhow::Result<Response> {
    let status = answer.status();
    if good.contains(&status) {
        return Ok(answer);
    }
    let url = answer.url().clone();
    let body = read(answer, ANSWER_LIMIT).await.unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let first = &problem["errors"][0];
    let said = match (first["code"].as_str(), first["message"].as_str()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => String::from_utf8_lossy(&body).into_owned(),
    };
    let said: String = said.chars().take(EXCERPT).collect();
    bail!("{url} responded with {status}: {}", visible(&said))
}

/// Reads the body of a response, which must not exceed `limit` bytes.
async fn read(mut answer: Response, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        ensure!((bytes.len() + chunk.len()) as u64 <= limit, "the response of {} exceeds {limit} bytes", answer.url());
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Checks that bytes have the expected digest.
fn check(what: &str, bytes: &[u8], expected: &str) -> anyhow::Result<()> {
    let found = digest(bytes);
    ensure!(found == expected, "{what} has the digest {found}, not {expected}: it was damaged or modified");
    Ok(())
}

/// Makes an error that names the failed request and the reason.
fn failed(error: reqwest::Error) -> anyhow::Error {
    let url = error.url().map(ToString::to_string).unwrap_or_default();
    anyhow::Error::from(error.without_url()).context(format!("no response from {url}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_asked_without_tls_and_no_other() {
        let origin = |host: &str, plain_http: bool| {
            let login = Login { plain_http, ..Login::default() };
            Registry::new(&format!("oci://{host}/a").parse().unwrap(), &login).unwrap().origin.to_string()
        };
        assert_eq!(origin("127.0.0.1:5000", false), "http://127.0.0.1:5000/");
        assert_eq!(origin("[::1]:5000", false), "http://[::1]:5000/");
        assert_eq!(origin("localhost", false), "http://localhost/");
        assert_eq!(origin("localhost.example.com", false), "https://localhost.example.com/");
        assert_eq!(origin("registry.example.com", true), "http://registry.example.com/");
    }
}
