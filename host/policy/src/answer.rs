//! Checks of a policy's result, which it must pass before the host uses it. Pure.

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method};
use url::Url;

use super::fault::Fault;
use super::limits::Limits;
use super::wit::{sign_export, types};
use carillon_core::text::clean_within;

/// Header that names the receiver's virtual host. A job may have its own; a policy may not change it.
const HOST: &str = "host";

/// Headers that belong to the connection or to the server; neither a job nor a policy may set them.
const RESERVED: [&str; 12] = [
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "idempotency-key",
    "carillon-job-id",
    "carillon-attempt",
];

/// Maximum length of a policy's text (a reason, a message) that is kept, in bytes.
const TEXT_LEN: usize = 1 << 10;

/// Maximum length of a URL that an encoder returns, in bytes.
const URL_LEN: usize = 8 << 10;

/// Maximum length of a method that an encoder sets, in bytes.
const METHOD_LEN: usize = 20;

/// Maximum length of the names and values of all headers that one call adds, in bytes.
const ADDED_HEADERS_LEN: usize = 32 << 10;

/// Cuts and cleans a policy's text, so that it can be kept and shown.
pub(super) fn readable(text: &str) -> String {
    clean_within(text, TEXT_LEN)
}

/// Checks whether a policy or a binding may put this header on a request.
///
/// # Errors
/// Returns one sentence that names the rule that the header breaks.
pub fn check_header(name: &str, value: &[u8]) -> Result<(), String> {
    if name.eq_ignore_ascii_case(HOST) {
        return Err(set_by_the_server(name));
    }
    check_any_header(name, value)
}

/// Checks whether a job may have this header: what [`check_header`] allows, and a `Host` of its own.
///
/// # Errors
/// Returns one sentence that names the rule that the header breaks.
pub fn check_job_header(name: &str, value: &[u8]) -> Result<(), String> {
    check_any_header(name, value)?;
    if name.eq_ignore_ascii_case(HOST) && !is_host(value) {
        let shown = readable(name);
        return Err(format!(
            "the value of the header `{shown}` is not a host name or an address, with or without a port"
        ));
    }
    Ok(())
}

fn set_by_the_server(name: &str) -> String {
    format!("the header `{}` is set by the server", readable(name))
}

/// Returns whether this is a valid value of a `Host` header (RFC 9110, section 7.2).
fn is_host(value: &[u8]) -> bool {
    Authority::try_from(value).is_ok_and(|authority| {
        let (host, whole) = (authority.host(), authority.as_str());
        !host.is_empty() && !whole.contains('@') && (whole == host || authority.port_u16().is_some())
    })
}

fn check_any_header(name: &str, value: &[u8]) -> Result<(), String> {
    let shown = readable(name);
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{shown}` is not a header name"))?;
    if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Err(set_by_the_server(name));
    }
    HeaderValue::from_bytes(value)
        .map_err(|_| format!("the value of the header `{shown}` has a line break or a control character"))?;
    Ok(())
}

/// Checks the request that an encoder returned.
pub(super) fn check_encoded(
    limits: &Limits,
    before: &types::Request,
    after: types::Request,
) -> Result<types::Request, Fault> {
    if after.headers.len() > before.headers.len().saturating_add(limits.added_headers) {
        return Err(Fault::bad_answer(format!("more than {} headers were added", limits.added_headers)));
    }
    let is_the_jobs_own = |header: &&types::Header| {
        header.name.eq_ignore_ascii_case(HOST) && before.headers.iter().any(|before| is_same(before, header))
    };
    // The `Host` header that the job itself has may stay, once.
    let own = after.headers.iter().find(is_the_jobs_own);
    let others = after.headers.iter().filter(|header| own.is_none_or(|own| !std::ptr::eq(own, *header)));
    check_headers(others, length(&before.headers))?;
    check_body(limits, &after.body)?;
    if after.method != before.method {
        check_method(&after.method)?;
    }
    if after.url != before.url {
        check_url(&before.url, &after.url)?;
    }
    Ok(after)
}

fn check_method(method: &str) -> Result<(), Fault> {
    // CONNECT would turn the connection into a tunnel.
    let fine =
        method.len() <= METHOD_LEN && Method::from_bytes(method.as_bytes()).is_ok_and(|it| it != Method::CONNECT);
    if fine { Ok(()) } else { Err(Fault::bad_answer(format!("`{}` is not a method", readable(method)))) }
}

fn check_url(before: &str, after: &str) -> Result<(), Fault> {
    if after.len() > URL_LEN {
        return Err(Fault::bad_answer(format!("the URL has more than {URL_LEN} bytes")));
    }
    if origin(after)? != origin(before)? {
        return Err(Fault::bad_answer("the URL's origin was changed; a policy may change the path and the query only"));
    }
    Ok(())
}

/// Checks a signer's result and puts it on the request.
pub(super) fn apply_signed(
    limits: &Limits,
    mut request: types::Request,
    signed: sign_export::Signed,
) -> Result<types::Request, Fault> {
    if signed.headers.len() > limits.added_headers {
        return Err(Fault::bad_answer(format!("more than {} headers were added", limits.added_headers)));
    }
    check_headers(signed.headers.iter(), 0)?;
    request.headers.retain(|old| !signed.headers.iter().any(|new| new.name.eq_ignore_ascii_case(&old.name)));
    request.headers.extend(signed.headers);
    if let Some(body) = signed.body {
        check_body(limits, &body)?;
        request.body = body;
    }
    Ok(request)
}

fn is_same(one: &types::Header, other: &types::Header) -> bool {
    one.name.eq_ignore_ascii_case(&other.name) && one.value == other.value
}

fn check_headers<'h>(
    mut headers: impl Iterator<Item = &'h types::Header> + Clone,
    length_before: usize,
) -> Result<(), Fault> {
    if length(headers.clone()) > length_before.saturating_add(ADDED_HEADERS_LEN) {
        return Err(Fault::bad_answer(format!("more than {ADDED_HEADERS_LEN} bytes of headers were added")));
    }
    headers.try_for_each(|header| check_header(&header.name, &header.value).map_err(Fault::bad_answer))
}

fn length<'h>(headers: impl IntoIterator<Item = &'h types::Header>) -> usize {
    headers.into_iter().map(|header| header.name.len() + header.value.len()).sum()
}

fn check_body(limits: &Limits, body: &[u8]) -> Result<(), Fault> {
    if body.len() > limits.answer_body {
        return Err(Fault::bad_answer(format!("the body has more than {} bytes", limits.answer_body)));
    }
    Ok(())
}

fn origin(url: &str) -> Result<url::Origin, Fault> {
    Ok(Url::parse(url).map_err(|_| Fault::bad_answer("the URL does not parse"))?.origin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limits() -> Limits {
        Limits {
            memory: 0,
            table_elements: 0,
            fuel: 0,
            fuel_per_byte: 0,
            deadline: Duration::ZERO,
            key_operations: 0,
            log_lines: 0,
            log_line_length: 0,
            added_headers: 2,
            answer_body: 8,
            embedded: 0,
        }
    }

    fn request(url: &str, headers: &[(&str, &str)], body: &[u8]) -> types::Request {
        let headers =
            headers.iter().map(|(name, value)| types::Header { name: (*name).into(), value: (*value).into() });
        types::Request { method: "POST".into(), url: url.into(), headers: headers.collect(), body: body.into() }
    }

    fn refusal(after: types::Request) -> String {
        check_encoded(&limits(), &request("http://a/x", &[], b""), after).unwrap_err().message
    }

    #[test]
    fn an_encoder_may_change_path_query_headers_and_body() {
        let after = request("http://a:80/y?q", &[("X-A", "b")], b"body");
        assert!(check_encoded(&limits(), &request("http://a/x", &[], b""), after).is_ok());
    }

    #[test]
    fn an_encoder_may_not_leave_its_bounds() {
        assert!(refusal(request("http://b/x", &[], b"")).contains("origin"));
        assert!(refusal(request("https://a/x", &[], b"")).contains("origin"));
        assert!(refusal(request("http://a/x", &[("X-A", "b\r\nX-B: c")], b"")).contains("line break"));
        assert!(refusal(request("http://a/x", &[("X A", "b")], b"")).contains("not a header name"));
        assert!(refusal(request("http://a/x", &[("Host", "b")], b"")).contains("set by the server"));
        assert!(refusal(request("http://a/x", &[("A", ""), ("B", ""), ("C", "")], b"")).contains("more than 2"));
        assert!(refusal(request("http://a/x", &[], b"123456789")).contains("8 bytes"));
    }

    #[test]
    fn host_of_a_job_stays_as_it_is() {
        let own = request("http://a/x", &[("Host", "b")], b"");
        let encoded = |headers: &[(&str, &str)]| check_encoded(&limits(), &own, request("http://a/x", headers, b""));
        assert!(
            encoded(&[("Host", "b")]).is_ok() && encoded(&[("host", "b"), ("X", "1")]).is_ok() && encoded(&[]).is_ok()
        );
        for changed in [&[("Host", "c")][..], &[("Host", "b"), ("Host", "b")], &[("Host", "b"), ("host", "c")]] {
            assert!(encoded(changed).unwrap_err().message.contains("set by the server"), "{changed:?}");
        }
    }

    #[test]
    fn host_of_a_job_is_a_name_or_an_address() {
        for host in ["b", "b.example.org:8080", "192.0.2.1", "[2001:db8::1]:443", "xn--bcher-kva.example"] {
            assert_eq!(check_job_header("Host", host.as_bytes()), Ok(()), "{host}");
        }
        for bad in ["", " ", "a b", "a/b", "user@b", "a:b", "a:99999", ":80", "b\u{fc}", "http://b"] {
            assert!(check_job_header("Host", bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check_job_header("Content-Length", b"1").is_err());
    }

    #[test]
    fn a_signature_replaces_a_header_of_the_same_name() {
        let signed = sign_export::Signed {
            headers: vec![types::Header { name: "x-sig".into(), value: b"new".to_vec() }],
            body: None,
        };
        let request =
            apply_signed(&limits(), request("http://a/", &[("X-Sig", "old"), ("X", "1")], b"kept"), signed).unwrap();
        let names: Vec<_> = request.headers.iter().map(|header| header.name.as_str()).collect();
        assert_eq!(names, ["X", "x-sig"]);
        assert_eq!(request.body, b"kept");
    }
}
