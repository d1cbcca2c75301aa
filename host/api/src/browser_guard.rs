//! Guard against web pages, for servers that require no token.
//!
//! Such a server listens on a loopback address, which every page in a browser of the same machine can reach: with a form, with a script that does
//! not read the response, or under a name of its own that it points to the loopback address (DNS rebinding). The guard refuses what only a page
//! can send, before anything of the request is parsed. It is no authentication: whoever can open a connection by other means is let through.
//!
//! Invariant: every request that passes names this machine or `server.public_url`, comes from no other origin, and, if it writes under `/v1`, has a
//! body of a type for which a browser asks the server first (a preflight, which this server never answers with permission).

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode};
use hyper::body::Body as _;
use url::{Host, Url};

use super::error::Problem;

/// Header in which browsers tell where a request comes from (W3C Fetch Metadata).
const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Values of [`SEC_FETCH_SITE`] for the server's own pages, and for what a person has typed.
const OWN_SITES: [&[u8]; 2] = [b"same-origin", b"none"];

/// Prefix of the paths whose writes must have a body that a form cannot send.
const NATIVE: &str = "/v1/";

/// Types of bodies that a page can send to any origin without a preflight (Fetch standard, "CORS-safelisted request-header").
const SIMPLE_TYPES: [&str; 3] = ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"];

/// Names and origin of a server that requires no token.
#[derive(Clone, Debug)]
pub struct BrowserGuard {
    scheme: &'static str,
    listen: Vec<IpAddr>,
    public_url: Option<Url>,
}

impl BrowserGuard {
    /// Creates the guard of a server that listens on these addresses, with TLS or without, and is known under `public_url`.
    #[must_use]
    pub fn new(has_tls: bool, listen: impl IntoIterator<Item = SocketAddr>, public_url: Option<Url>) -> Self {
        let scheme = if has_tls { "https" } else { "http" };
        Self { scheme, listen: listen.into_iter().map(|address| address.ip().to_canonical()).collect(), public_url }
    }

    /// Refuses a request that only a web page can send.
    pub(super) fn check(&self, request: &Request) -> Result<(), Problem> {
        let headers = request.headers();
        let named = headers.get_all(HOST).iter().map(|host| host.to_str().ok().and_then(|host| host.parse().ok()));
        // The target of a request may name a host, too, which goes before the header (RFC 9112, section 3.2.2).
        let named: Vec<Option<Authority>> = named.chain(request.uri().authority().cloned().map(Some)).collect();
        // A client that names no host is old, and no browser.
        if !named.iter().all(|name| name.as_ref().is_some_and(|name| self.is_named(name))) {
            return Err(Problem::misdirected());
        }
        self.check_origin(headers, named.last().and_then(Option::as_ref))?;
        let is_write = !request.method().is_safe() && request.uri().path().starts_with(NATIVE);
        if is_write && !request.body().is_end_stream() && !needs_preflight(headers) {
            return Err(Problem::simple_type());
        }
        Ok(())
    }

    /// Returns whether a name means this server, whatever the port: a port may be forwarded.
    fn is_named(&self, name: &Authority) -> bool {
        if name.as_str().contains('@') {
            return false;
        }
        let Ok(host) = Host::parse(name.host()) else { return false };
        let address = match &host {
            Host::Domain(name) if name == "localhost" => return true,
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(*address)),
            Host::Ipv6(address) => Some(IpAddr::V6(*address).to_canonical()),
        };
        let is_own = address.is_some_and(|address| address.is_loopback() || self.listen.contains(&address));
        is_own || self.public_url.as_ref().and_then(Url::host).is_some_and(|public| public.to_owned() == host)
    }

    /// Refuses a request that a page of another origin has sent.
    fn check_origin(&self, headers: &HeaderMap, named: Option<&Authority>) -> Result<(), Problem> {
        let own = named.and_then(|name| Url::parse(&format!("{}://{name}", self.scheme)).ok());
        let own = own.iter().chain(&self.public_url).map(|url| url.origin().ascii_serialization());
        let own: Vec<String> = own.collect();
        let is_own = |origin: &[u8]| own.iter().any(|own| own.as_bytes() == origin);
        let is_foreign = headers.get_all(ORIGIN).iter().any(|origin| !is_own(origin.as_bytes()))
            || headers.get_all(SEC_FETCH_SITE).iter().any(|site| !OWN_SITES.contains(&site.as_bytes()));
        if is_foreign {
            return Err(Problem::forbidden(
                "a web page of another origin sent this request, and the server requires no token that would show who stands behind it",
            ));
        }
        Ok(())
    }
}

/// Returns whether a browser asks the server before it sends a body of this type to it from another origin.
fn needs_preflight(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(kind), None) = (types.next(), types.next()) else { return false };
    let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
    };
    let is_type = essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    is_type && !SIMPLE_TYPES.contains(&essence.as_str())
}

impl Problem {
    /// 415: a web page of any origin could have sent this body.
    #[must_use]
    pub fn simple_type() -> Self {
        let detail = "a server that requires no token takes no body of a type that any web page can send, and none without a type: \
                      use `curl --json`, or another `Content-Type`, such as `application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "Unsupported media type", detail)
    }

    /// 421: the request names a host that is not this server.
    #[must_use]
    pub fn misdirected() -> Self {
        let detail = "the request names a host that is not this server; a server that requires no token takes `localhost`, loopback \
                      addresses and the host of `server.public_url`";
        Self::new(StatusCode::MISDIRECTED_REQUEST, "misdirected", "Misdirected request", detail)
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Method;

    use super::*;

    fn guard() -> BrowserGuard {
        let public_url = Url::parse("https://carillon.example/").unwrap();
        BrowserGuard::new(false, ["127.0.0.1:7070".parse().unwrap(), "127.9.9.9:1".parse().unwrap()], Some(public_url))
    }

    /// Returns the status of the refusal of a request to `/v1/groups`; 200 if it passes.
    fn status(method: Method, uri: &str, headers: &[(&str, &str)], body: &'static str) -> u16 {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let refused = guard().check(&request.body(Body::from(body)).unwrap());
        refused.map_err(|problem| problem.status()).err().unwrap_or(StatusCode::OK).as_u16()
    }

    fn get(headers: &[(&str, &str)]) -> u16 {
        status(Method::GET, "/v1/groups", headers, "")
    }

    #[test]
    fn only_names_of_this_machine_pass() {
        for host in [
            "localhost",
            "localhost:7070",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.0.0.1:7070",
            "127.8.8.8",
            "[::1]:7070",
            "[::ffff:127.0.0.1]",
            "127.9.9.9",
            "carillon.example",
            "Carillon.Example:443",
        ] {
            assert_eq!(get(&[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7070",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "localhost@evil.example",
            "evil@localhost",
            "sub.carillon.example",
            "a.localhost",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "[fe80::1]",
            "",
            "a b",
        ] {
            assert_eq!(get(&[("host", host)]), 421, "{host}");
        }
        assert_eq!(get(&[]), 200, "HTTP/1.0 knows no host");
        assert_eq!(get(&[("host", "localhost"), ("host", "evil.example")]), 421);
    }

    #[test]
    fn host_in_the_target_counts_as_the_header_does() {
        let to = |uri| status(Method::GET, uri, &[("host", "localhost")], "");
        assert_eq!(to("http://evil.example/v1/groups"), 421);
        assert_eq!(to("http://127.0.0.1:7070/v1/groups"), 200);
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        let from = |origin| get(&[("host", "localhost:7070"), ("origin", origin)]);
        for origin in ["http://localhost:7070", "https://carillon.example"] {
            assert_eq!(from(origin), 200, "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://evil.example",
            "http://localhost",
            "http://localhost:3000",
            "https://localhost:7070",
            "http://127.0.0.1:7070",
            "http://carillon.example",
            "http://localhost:7070/",
            "http://localhost:7070, http://evil.example",
        ] {
            assert_eq!(from(origin), 403, "{origin}");
        }
        assert_eq!(
            get(&[("host", "localhost:80"), ("origin", "http://localhost")]),
            200,
            "port 80 goes without saying"
        );
        for (site, expected) in
            [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403), ("other", 403), ("", 403)]
        {
            assert_eq!(get(&[("host", "localhost"), ("sec-fetch-site", site)]), expected, "{site}");
        }
    }

    #[test]
    fn origin_of_a_server_with_tls_is_https() {
        let guard = BrowserGuard::new(true, ["127.0.0.1:7070".parse().unwrap()], None);
        let is_refused = |origin: &str| {
            let request =
                Request::builder().uri("/v1/groups").header("host", "localhost:7070").header("origin", origin);
            guard.check(&request.body(Body::empty()).unwrap()).is_err()
        };
        assert!(!is_refused("https://localhost:7070"));
        assert!(is_refused("http://localhost:7070"));
    }

    #[test]
    fn writes_have_a_body_that_no_form_can_send() {
        let post = |uri, kinds: &[&str], body| {
            let kinds = kinds.iter().map(|kind| ("content-type", *kind));
            let headers: Vec<_> = [("host", "localhost")].into_iter().chain(kinds).collect();
            status(Method::POST, uri, &headers, body)
        };
        for kind in
            ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/wasm", "x/y"]
        {
            assert_eq!(post("/v1/groups/g/jobs", &[kind], "{}"), 200, "{kind}");
        }
        for kinds in [
            &[][..],
            &["text/plain"],
            &["TEXT/plain; charset=utf-8"],
            &["text/plain;application/json"],
            &["application/x-www-form-urlencoded"],
            &["multipart/form-data; boundary=x"],
            &["json"],
            &["application/json, text/plain"],
            &["application/json", "text/plain"],
            &["/"],
        ] {
            assert_eq!(post("/v1/groups/g/jobs", kinds, "{}"), 415, "{kinds:?}");
            assert_eq!(post("/v1/groups/g/pause", kinds, ""), 200, "{kinds:?}: nothing is sent");
            assert_eq!(
                post("/compat/poussetaches/", kinds, "{}"),
                200,
                "{kinds:?}: mounts take their originals' types"
            );
        }
        let put = status(Method::PUT, "/v1/groups/g", &[("host", "localhost"), ("content-type", "text/plain")], "{}");
        assert_eq!(put, 415);
    }
}
