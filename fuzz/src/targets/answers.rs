//! What policies return, and texts of others.

use std::sync::LazyLock;

use carillon_config::{Config, Sources};
use carillon_core::text::{clean, clean_within, is_hidden};
use carillon_policy::fuzzing::{check_encoded, check_signed};
use carillon_policy::{Header, Limits, Request, check_header};
use http::{HeaderName, HeaderValue, Method};
use url::Url;

use crate::lines;

/// Limits of the default configuration.
static LIMITS: LazyLock<Limits> = LazyLock::new(|| {
    Limits::from_config(&Config::load(Sources::default()).expect("the default configuration is valid"))
});

/// Lines: the URL before, the method and the URL after, headers with a colon, and after an empty line the body.
pub(crate) fn answers(data: &[u8]) {
    let [url, method, changed, rest] = lines(data);
    if !Url::parse(url).is_ok_and(|url| ["http", "https"].contains(&url.scheme())) {
        return;
    }
    let (head, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
    let headers = || {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| Header { name: name.to_owned(), value: value.as_bytes().to_vec() })
    };
    let before = Request {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: vec![Header { name: "host".to_owned(), value: b"receiver.example".to_vec() }],
        body: Vec::new(),
    };
    let after =
        Request { method: method.to_owned(), url: changed.to_owned(), headers: headers().collect(), body: body.into() };
    if let Ok(sent) = check_encoded(&LIMITS, &before, after) {
        check_request(&before, &sent);
    }
    if let Ok(sent) = check_signed(&LIMITS, before.clone(), headers().collect(), Some(body.into())) {
        check_request(&before, &sent);
        assert_eq!(sent.url, before.url);
    }
}

/// Checks that a request which was accepted can be sent, and goes where it went before.
fn check_request(before: &Request, sent: &Request) {
    let origin = |url: &str| Url::parse(url).map(|url| url.origin()).expect("an accepted URL parses");
    assert_eq!(origin(&before.url), origin(&sent.url));
    let method = Method::from_bytes(sent.method.as_bytes()).expect("an accepted method is one");
    assert_ne!(method, Method::CONNECT);
    let mut hosts = 0;
    for Header { name, value } in &sent.headers {
        HeaderName::from_bytes(name.as_bytes()).expect("an accepted name is one");
        HeaderValue::from_bytes(value).expect("an accepted value is one");
        assert!(!value.contains(&b'\n') && !value.contains(&b'\r'), "{name}");
        if name.eq_ignore_ascii_case("host") {
            hosts += 1;
            assert!(before.headers.iter().any(|own| own.value == *value), "`Host` was changed");
        } else {
            assert_eq!(check_header(name, value), Ok(()));
        }
    }
    assert!(hosts <= 1, "there are {hosts} headers `Host`");
}

/// Any text.
pub(crate) fn texts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let shown = clean(&text);
    assert!(!shown.contains(is_hidden), "{shown:?}");
    assert_eq!(clean(&shown), shown);
    assert_eq!(shown.chars().count(), text.chars().count());
    let limit = data.first().map_or(0, |first| usize::from(*first));
    let cut = clean_within(&text, limit);
    assert!(cut.len() <= limit && !cut.contains(is_hidden), "{cut:?}");
}
