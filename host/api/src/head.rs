//! Heads of requests: what HTTP itself demands of them, before anything else looks at the request.

use axum::extract::Request;
use axum::http::Version;
use axum::http::header::HOST;
use axum::http::uri::Authority;

use super::error::Problem;

/// Longest head of a request, in bytes.
pub(super) const MAX_HEAD_LEN: usize = 64 << 10;

/// Bytes of a header's line besides its name and value, and of the first line besides method and target.
const HEADER_LINE: usize = ": \r\n".len();
const REQUEST_LINE: usize = "  HTTP/1.1\r\n".len();

/// Checks the length of a head and the host that it names: in `Host` (RFC 9112, section 3.2), or in `:authority`, which is the target's authority here
/// (RFC 9113, section 8.3.1).
///
/// # Errors
/// Returns 431 if the head is too long, and 400 if it does not name one host.
pub(super) fn check(request: &Request) -> Result<(), Problem> {
    if head_len(request) > MAX_HEAD_LEN {
        return Err(Problem::head_too_large(MAX_HEAD_LEN));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(Problem::malformed(None, "the request has more than one `Host`")),
        (None, _) if request.version() >= Version::HTTP_2 && request.uri().authority().is_none() => {
            Err(Problem::malformed(None, "a request of HTTP/2 needs an `:authority`"))
        }
        (None, _) if request.version() == Version::HTTP_11 => {
            Err(Problem::malformed(None, "a request of HTTP/1.1 needs a `Host`"))
        }
        (Some(host), None) if request.version() >= Version::HTTP_2 && !is_authority(request, host.as_bytes()) => {
            Err(Problem::malformed(None, "the `Host` is not the `:authority`"))
        }
        (Some(host), None) if !is_host(host.as_bytes()) => Err(Problem::malformed(None, "the `Host` is not a host")),
        _ => Ok(()),
    }
}

/// Returns whether a value of `Host` is a host with or without a port, or empty, as for a target without a host.
fn is_host(value: &[u8]) -> bool {
    value.is_empty() || Authority::try_from(value).is_ok_and(|host| !host.as_str().contains('@'))
}

/// Returns whether the target of a request names this host, or none.
fn is_authority(request: &Request, host: &[u8]) -> bool {
    request.uri().authority().is_none_or(|authority| authority.as_str().as_bytes().eq_ignore_ascii_case(host))
}

/// Returns the length of a head, without optional white space, which is not kept.
fn head_len(request: &Request) -> usize {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(1, |target| target.as_str().len())
        + uri.authority().map_or(0, |host| host.as_str().len());
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_LINE);
    REQUEST_LINE + request.method().as_str().len() + target + headers.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn status(version: Version, hosts: &[&str], filler: usize) -> u16 {
        let mut request = Request::builder().version(version).uri("/healthz").header("x", "x".repeat(filler));
        for host in hosts {
            request = request.header(HOST, *host);
        }
        check(&request.body(Body::empty()).unwrap()).map_err(|problem| problem.status().as_u16()).err().unwrap_or(200)
    }

    #[test]
    fn request_names_one_host() {
        for (version, hosts, expected) in [
            (Version::HTTP_11, &["a:1"][..], 200),
            (Version::HTTP_11, &["[::1]:7070"], 200),
            (Version::HTTP_11, &[""], 200),
            (Version::HTTP_11, &[], 400),
            (Version::HTTP_11, &["a", "a"], 400),
            (Version::HTTP_11, &["a b"], 400),
            (Version::HTTP_11, &["a/b"], 400),
            (Version::HTTP_11, &["a@b"], 400),
            (Version::HTTP_10, &[], 200),
            (Version::HTTP_10, &["a", "b"], 400),
        ] {
            assert_eq!(status(version, hosts, 1), expected, "{version:?} {hosts:?}");
        }
    }

    #[test]
    fn request_of_http_2_names_one_host_in_its_target_or_header() {
        let status = |uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().version(Version::HTTP_2).uri(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            check(&request.body(Body::empty()).unwrap()).map_err(|problem| problem.status().as_u16()).err()
        };
        assert_eq!(status("https://a:1/healthz", &[]), None);
        assert_eq!(status("https://a:1/healthz", &["A:1"]), None);
        assert_eq!(status("/healthz", &["a:1"]), None);
        assert_eq!(status("/healthz", &[]), Some(400));
        assert_eq!(status("https://a:1/healthz", &["b:1"]), Some(400));
        assert_eq!(status("https://a:1/healthz", &["a:1", "a:1"]), Some(400));
    }

    #[test]
    fn head_is_taken_up_to_its_bound() {
        assert_eq!(status(Version::HTTP_11, &["a"], 30_000), 200);
        assert_eq!(status(Version::HTTP_11, &["a"], MAX_HEAD_LEN - 100), 200);
        assert_eq!(status(Version::HTTP_11, &["a"], MAX_HEAD_LEN), 431);
    }
}
