//! Redirects: the next request after a redirect, and which headers it keeps. Pure.
//!
//! Methods change as browsers, Go's net/http and Python's requests change them (RFC 9110, section 15.4, allows it): after 301, 302 and
//! 303 comes a GET without a body, or a HEAD; after 307 and 308 the same request again.
//!
//! Invariant: another origin (scheme, host, port) gets only headers that do not identify the sender. A header that was dropped stays dropped,
//! also when a later redirect leads back. No redirect leads from `https` to `http` unless the group allows it, and none to an origin that a
//! key which signed the request may not go to.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode};
use url::Url;

use super::failure::Failure;
use super::outgoing::{ATTEMPT_HEADER, IDEMPOTENCY_KEY, JOB_ID_HEADER, Outgoing, TRACEPARENT};
use carillon_core::error_code::TransportError;
use carillon_policy::KeyMaterial;

/// Longest `Location` that is followed, in bytes: the bound of a job's URL.
const LOCATION_LEN: usize = 8 << 10;

/// Longest part of a URL that is kept with an attempt, in bytes.
const SHOWN_LEN: usize = 1 << 10;

/// Headers that go to another origin, and prefixes of the names of further ones.
const TRAVELLING: [&str; 6] = ["accept", "user-agent", TRACEPARENT, IDEMPOTENCY_KEY, JOB_ID_HEADER, ATTEMPT_HEADER];
const TRAVELLING_KINDS: [&str; 3] = ["accept-", CONTENT, "carillon-metadata-"];

/// Prefix of the headers that describe a body.
const CONTENT: &str = "content-";

/// Returns the next request after a response with `status` and `location` to `request`, which followed `followed` redirects; `None` if the
/// response is final.
///
/// # Errors
/// Returns the failure if the redirect cannot be followed, or exceeds the group's number of redirects.
pub(super) fn onward(
    request: &Outgoing,
    followed: usize,
    status: StatusCode,
    location: Option<&HeaderValue>,
) -> Result<Option<Outgoing>, Failure> {
    let repeats = match status.as_u16() {
        301..=303 => false,
        307 | 308 => true,
        _ => return Ok(None),
    };
    let location = location.filter(|location| !location.is_empty() && request.redirects.most > 0);
    let Some(location) = location else { return Ok(None) };
    let most = request.redirects.most;
    if followed >= most {
        return Err(failure(format!("the response is another redirect, and the group follows {most}")));
    }
    let url = target(request, location)?;
    let is_allowed = |key: &&Arc<KeyMaterial>| key.origins().is_none_or(|origins| origins.contains(&url));
    if let Some(key) = request.bound_keys.iter().find(|key| !is_allowed(key)) {
        let (origin, name) = (url.origin().ascii_serialization(), key.name());
        return Err(failure(format!(
            "the response is a redirect to `{origin}`, where the key `{name}`, which signed the request, may not go"
        )));
    }
    let mut next = Outgoing { url, ..request.clone() };
    if !repeats {
        next.method = if request.method == Method::HEAD { Method::HEAD } else { Method::GET };
        next.body = Bytes::new();
        keep_headers(&mut next, |name| !name.starts_with(CONTENT));
    }
    if next.url.origin() != request.url.origin() {
        keep_headers(&mut next, travels);
        next.auth_headers.clear();
        next.client_key = None;
    }
    Ok(Some(next))
}

/// Returns a URL as it is kept with an attempt.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither call fails for a URL with a host.
    let _without_user = url.set_username("").and_then(|()| url.set_password(None));
    let mut text = String::from(url);
    text.truncate(text.floor_char_boundary(SHOWN_LEN));
    text
}

/// Returns the URL that `location` names, relative to that of `request`.
///
/// It has the user info of the request at the same origin, and none at another origin. User info in `location` is not used.
fn target(request: &Outgoing, location: &HeaderValue) -> Result<Url, Failure> {
    let from = &request.url;
    let unusable = |why: String| failure(format!("the response is a redirect with an unusable `Location`: {why}"));
    let text = std::str::from_utf8(location.as_bytes()).map_err(|_| unusable("it is not text".to_owned()))?;
    if text.len() > LOCATION_LEN {
        return Err(unusable(format!("it has more than {LOCATION_LEN} bytes")));
    }
    let mut url = from.join(text).map_err(|error| unusable(error.to_string()))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(unusable(format!("`{}` URLs are not supported", url.scheme())));
    }
    if from.scheme() == "https" && url.scheme() == "http" && !request.redirects.to_http {
        let why = "it leads from https to http, which would expose the request (`limits.redirects_to_http` allows it)";
        return Err(unusable(why.to_owned()));
    }
    let same = url.origin() == from.origin();
    let (user, password) = if same { (from.username(), from.password()) } else { ("", None) };
    let set = url.set_username(user).and_then(|()| url.set_password(password));
    set.map_err(|()| unusable("it has no host".to_owned()))?;
    url.set_fragment(None);
    Ok(url)
}

fn travels(name: &str) -> bool {
    TRAVELLING.contains(&name) || TRAVELLING_KINDS.iter().any(|kind| name.starts_with(kind))
}

fn keep_headers(request: &mut Outgoing, keeps: impl Fn(&str) -> bool) {
    let headers = std::mem::take(&mut request.headers);
    let kept = headers.iter().filter(|(name, _)| keeps(name.as_str()));
    request.headers = kept.map(|(name, value): (&HeaderName, _)| (name.clone(), value.clone())).collect();
}

fn failure(message: String) -> Failure {
    Failure::new(TransportError::Redirect, message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hyper::header::HeaderMap;

    use super::*;
    use carillon_policy::binding::{AuthHeader, Redirects};
    use carillon_policy::{KeyKind, KeyOrigins};
    use zeroize::Zeroizing;

    fn request(method: Method, url: &str) -> Outgoing {
        let names = ["authorization", "cookie", "content-type", "x-signature", "accept-language", "user-agent"];
        let own = ["idempotency-key", "carillon-attempt", "carillon-metadata-a", "carillon-signature", "traceparent"];
        let header = |name: &&'static str| (HeaderName::from_static(name), HeaderValue::from_static("v"));
        let headers: HeaderMap = names.iter().chain(&own).map(header).collect();
        let auth = AuthHeader { name: HeaderName::from_static("x-key"), key: "k".to_owned(), pointer: String::new() };
        let (url, timeout) = (Url::parse(url).unwrap(), Duration::from_secs(1));
        let auth_headers = vec![(auth, HeaderValue::from_static("v"))];
        Outgoing {
            method,
            url,
            headers,
            auth_headers,
            client_key: None,
            bound_keys: Vec::new(),
            egress: None,
            body: "body".into(),
            timeout,
            redirects: Redirects { most: 3, to_http: false },
        }
    }

    fn onward_to(request: &Outgoing, status: u16, location: &str) -> Option<Outgoing> {
        let (status, location) = (StatusCode::from_u16(status).unwrap(), HeaderValue::from_str(location).unwrap());
        onward(request, 0, status, Some(&location)).unwrap_or_else(|failure| panic!("{failure:?}"))
    }

    fn names(request: &Outgoing) -> Vec<&str> {
        let mut names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_status_says_whether_the_request_is_repeated() {
        for (status, method, expected) in [
            (301, Method::POST, Method::GET),
            (302, Method::PUT, Method::GET),
            (303, Method::DELETE, Method::GET),
            (302, Method::GET, Method::GET),
            (303, Method::HEAD, Method::HEAD),
        ] {
            let next = onward_to(&request(method, "http://a/x"), status, "/y").unwrap();
            assert_eq!((next.method, next.body.len()), (expected, 0), "{status}");
            assert!(!next.headers.contains_key("content-type") && next.headers.contains_key("authorization"));
        }
        for status in [307, 308] {
            let next = onward_to(&request(Method::PUT, "http://a/x"), status, "/y").unwrap();
            assert_eq!((next.method, next.body.as_ref()), (Method::PUT, b"body".as_slice()), "{status}");
            assert!(next.headers.contains_key("content-type"));
        }
    }

    #[test]
    fn what_is_no_redirect_is_the_answer() {
        let request = request(Method::POST, "http://a/x");
        for status in [200, 201, 300, 304, 305, 306, 400] {
            assert!(onward_to(&request, status, "/y").is_none(), "{status}");
        }
        assert!(onward_to(&request, 302, "").is_none());
        assert!(onward(&request, 0, StatusCode::FOUND, None).is_ok_and(|next| next.is_none()));
        assert!(
            onward_to(&Outgoing { redirects: Redirects::default(), ..request }, 302, "ftp://a/").is_none(),
            "nothing is followed"
        );
    }

    #[test]
    fn locations_are_seen_from_where_they_come() {
        for (location, expected) in [
            ("y?q=1#part", "http://a:81/p/y?q=1"),
            ("/y", "http://a:81/y"),
            ("?q", "http://a:81/p/x?q"),
            ("//b/y", "http://b/y"),
            ("https://a:81/", "https://a:81/"),
            ("http://user:password@b/", "http://b/"),
            ("HTTP://B:80/../y", "http://b/y"),
        ] {
            let next = onward_to(&request(Method::GET, "http://a:81/p/x?old#old"), 302, location).unwrap();
            assert_eq!(next.url.as_str(), expected, "{location}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_a_failure() {
        let request = request(Method::GET, "http://a/");
        let refused = |followed, location: &[u8]| {
            let location = HeaderValue::from_bytes(location).unwrap();
            match onward(&request, followed, StatusCode::FOUND, Some(&location)) {
                Err(Failure::Transport { error: TransportError::Redirect, message }) => message,
                other => panic!("{other:?}"),
            }
        };
        assert!(refused(0, b"ftp://a/").contains("`ftp`"));
        assert!(refused(0, b"javascript:alert(1)").contains("`javascript`"));
        assert!(refused(0, b"http://[::1/").contains("IPv6"));
        assert!(refused(0, b"/\xff").contains("not text"));
        assert!(refused(0, "x".repeat(LOCATION_LEN + 1).as_bytes()).contains("bytes"));
        assert!(refused(3, b"/y").contains("follows 3"));
    }

    #[test]
    fn credentials_stay_at_home_and_do_not_come_back() {
        let home = request(Method::POST, "http://user:password@a/x");
        let same = onward_to(&home, 307, "http://a:80/y").unwrap();
        assert_eq!((same.url.as_str(), same.headers.len()), ("http://user:password@a/y", home.headers.len()));
        let other = onward_to(&home, 307, "http://user:password@a:81/y").unwrap();
        assert_eq!(other.url.as_str(), "http://a:81/y");
        let travelled = [
            "accept-language",
            "carillon-attempt",
            "carillon-metadata-a",
            "content-type",
            "idempotency-key",
            "traceparent",
            "user-agent",
        ];
        assert_eq!(names(&other), travelled);
        assert_eq!((home.auth_headers.len(), same.auth_headers.len(), other.auth_headers.len()), (1, 1, 0));
        let back = onward_to(&other, 307, "http://a/z").unwrap();
        assert_eq!((back.url.as_str(), names(&back)), ("http://a/z", travelled.to_vec()));
        assert!(back.auth_headers.is_empty());
        let secure = request(Method::GET, "https://a/x");
        for location in ["https://b/x", "https://a:444/x"] {
            assert!(!onward_to(&secure, 302, location).unwrap().headers.contains_key("authorization"), "{location}");
        }
    }

    #[test]
    fn redirect_from_https_to_http_is_not_followed() {
        let secure = request(Method::POST, "https://a/x");
        for location in ["http://a/x", "http://b/", "HTTP://a:443/x"] {
            let location = HeaderValue::from_static(location);
            for status in [StatusCode::FOUND, StatusCode::TEMPORARY_REDIRECT] {
                let refused = onward(&secure, 0, status, Some(&location));
                assert!(
                    matches!(refused, Err(Failure::Transport { error: TransportError::Redirect, .. })),
                    "{refused:?}"
                );
            }
        }
        let allowing = Outgoing { redirects: Redirects { most: 3, to_http: true }, ..secure.clone() };
        for (location, status) in [("http://a/x", 302), ("http://b/", 307)] {
            let next = onward_to(&allowing, status, location).unwrap();
            assert_eq!(next.url.as_str(), location);
            assert!(!next.headers.contains_key("authorization"), "http is another origin");
        }
        assert!(onward_to(&secure, 302, "//b/x").is_some(), "it stays https");
        assert!(onward_to(&request(Method::POST, "http://a/x"), 302, "https://a/x").is_some());
    }

    #[test]
    fn signed_request_is_not_redirected_where_its_key_may_not_go() {
        let key = |origins: &[&str]| {
            let origins: Vec<_> = origins.iter().map(|origin| (*origin).to_owned()).collect();
            let key = KeyMaterial::new("hook/1".to_owned(), KeyKind::Secret, Zeroizing::new(b"s".to_vec())).unwrap();
            Arc::new(key.bound_to(Some(KeyOrigins::parse(&origins).unwrap())))
        };
        let bound_keys = vec![key(&["http://a", "http://b"]), key(&["http://a", "http://b", "http://c"])];
        let signed = Outgoing { bound_keys, ..request(Method::POST, "http://a/x") };
        assert!(onward_to(&signed, 307, "/y").is_some());
        let next = onward_to(&signed, 307, "http://b/y").unwrap();
        for (from, status) in [(&signed, StatusCode::FOUND), (&next, StatusCode::TEMPORARY_REDIRECT)] {
            match onward(from, 0, status, Some(&HeaderValue::from_static("http://c/y"))) {
                Err(Failure::Transport { error: TransportError::Redirect, message }) => {
                    assert!(message.contains("`http://c`") && message.contains("`hook`"), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_url_is_shown_without_user_info_and_not_at_any_length() {
        let url = |text: &str| shown(&Url::parse(text).unwrap());
        assert_eq!(url("http://user:password@a/x?q"), "http://a/x?q");
        assert_eq!(url(&format!("http://a/{}", "x".repeat(9_000))).len(), SHOWN_LEN);
    }
}
