//! Comparison of two requests, to the byte. Pure.
//!
//! Headers whose values are keys are not compared: they belong to the group, whatever the version, and only the receiver sees them.

use std::ops::Range;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use crate::delivery::send::Outgoing;
use carillon_core::job::shown_url;
use carillon_core::text::is_hidden;

/// Largest number of a body's parts that are shown.
const PARTS: usize = 16;

/// Largest number of a part's bytes that are shown.
const PART_LEN: usize = 64;

/// Number of equal bytes below which two parts become one.
const GAP: usize = 8;

/// Largest number of bytes of a URL, or of a header's value, that are shown; and the number of them from before the first difference.
const VALUE_LEN: usize = 1 << 10;
const BEFORE: usize = 32;

/// Differences of the request that a version would have sent from the one that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RequestChanges {
    /// HTTP method; null if it is the same, as for all of these members.
    pub method: Option<TextChange>,
    /// URL.
    pub url: Option<TextChange>,
    /// Headers that differ. Headers whose values are keys (`auth_headers`) are not compared.
    pub headers: Vec<HeaderChange>,
    /// Names of all headers, if the common ones are in another order.
    pub header_order: Option<OrderChange>,
    /// Body.
    pub body: Option<BodyChange>,
}

/// Text that differs. Of a text longer than 1 KiB, only the surroundings of the first different byte are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct TextChange {
    /// Text that was sent.
    pub said: String,
    /// Text that the version would have sent.
    pub shadow: String,
}

/// Header that differs. A value that is not text is shown as `hex` and its bytes. A value longer than 1 KiB is shown like a long text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct HeaderChange {
    /// Name of the header.
    pub name: String,
    /// Values that were sent; empty if the header was absent.
    pub said: Vec<String>,
    /// Values that the version would have sent.
    pub shadow: Vec<String>,
}

/// Order that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OrderChange {
    /// Order that was sent.
    pub said: Vec<String>,
    /// Order that the version would have sent.
    pub shadow: Vec<String>,
}

/// Body that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct BodyChange {
    /// Size of the body that was sent, in bytes.
    pub said_length: usize,
    /// Size of the body that the version would have sent, in bytes.
    pub shadow_length: usize,
    /// Parts that differ: between two bodies of the same size, each such place; else the part between the common beginning and the common end.
    pub parts: Vec<BodyPart>,
    /// Number of further parts, which are not listed.
    pub more: usize,
}

/// Part of a body that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct BodyPart {
    /// Offset of the part, in bytes; it is the same in both bodies.
    pub offset: usize,
    /// Size of the part that was sent, in bytes.
    pub said_length: usize,
    /// Size of the part that the version would have sent, in bytes.
    pub shadow_length: usize,
    /// Bytes that were sent, in hexadecimal digits; the first 64.
    pub said_hex: String,
    /// Bytes that the version would have sent, in hexadecimal digits; the first 64.
    pub shadow_hex: String,
}

impl RequestChanges {
    /// Returns the differences of `shadow` from `said`.
    #[must_use]
    pub fn between(said: &Outgoing, shadow: &Outgoing) -> Self {
        Self {
            method: TextChange::between(said.method.as_str(), shadow.method.as_str()),
            url: TextChange::between(&shown_url(said.url.as_str()), &shown_url(shadow.url.as_str())),
            headers: headers(&said.headers, &shadow.headers),
            header_order: order(&said.headers, &shadow.headers),
            body: BodyChange::between(&said.body, &shadow.body),
        }
    }
}

impl TextChange {
    fn between(said: &str, shadow: &str) -> Option<Self> {
        let [said_bytes, shadow_bytes] = [said.as_bytes(), shadow.as_bytes()];
        (said != shadow).then(|| Self {
            said: excerpt(said_bytes, Some(shadow_bytes)),
            shadow: excerpt(shadow_bytes, Some(said_bytes)),
        })
    }
}

/// Returns the headers with other values, in the order in which they were sent, then the new ones.
fn headers(said: &HeaderMap, shadow: &HeaderMap) -> Vec<HeaderChange> {
    let new = shadow.keys().filter(|name| !said.contains_key(*name));
    let values = |map: &HeaderMap, name: &HeaderName, other: &HeaderMap| -> Vec<String> {
        let others: Vec<&HeaderValue> = other.get_all(name).iter().collect();
        let all = map.get_all(name).iter().enumerate();
        all.map(|(at, value)| excerpt(value.as_bytes(), others.get(at).map(|it| it.as_bytes()))).collect()
    };
    said.keys()
        .chain(new)
        .filter(|name| !said.get_all(*name).iter().eq(shadow.get_all(*name).iter()))
        .map(|name| HeaderChange {
            name: name.as_str().to_owned(),
            said: values(said, name, shadow),
            shadow: values(shadow, name, said),
        })
        .collect()
}

fn order(said: &HeaderMap, shadow: &HeaderMap) -> Option<OrderChange> {
    let both = said.keys().filter(|name| shadow.contains_key(*name));
    if both.eq(shadow.keys().filter(|name| said.contains_key(*name))) {
        return None;
    }
    let names = |map: &HeaderMap| map.keys().map(|name| name.as_str().to_owned()).collect();
    Some(OrderChange { said: names(said), shadow: names(shadow) })
}

impl BodyChange {
    fn between(said: &[u8], shadow: &[u8]) -> Option<Self> {
        if said == shadow {
            return None;
        }
        let places = if said.len() == shadow.len() { places(said, shadow) } else { vec![middle(said, shadow)] };
        let part = |(said_at, shadow_at): &(Range<usize>, Range<usize>)| BodyPart {
            offset: said_at.start,
            said_length: said_at.len(),
            shadow_length: shadow_at.len(),
            said_hex: hex_of(said, said_at),
            shadow_hex: hex_of(shadow, shadow_at),
        };
        Some(Self {
            said_length: said.len(),
            shadow_length: shadow.len(),
            parts: places.iter().take(PARTS).map(part).collect(),
            more: places.len().saturating_sub(PARTS),
        })
    }
}

/// Returns the ranges in which two bodies of one length differ.
fn places(said: &[u8], shadow: &[u8]) -> Vec<(Range<usize>, Range<usize>)> {
    let mut places: Vec<Range<usize>> = Vec::new();
    for (at, _) in said.iter().zip(shadow).enumerate().filter(|(_, (one, other))| one != other) {
        match places.last_mut() {
            Some(last) if at < last.end + GAP => last.end = at + 1,
            _ => places.push(at..at + 1),
        }
    }
    places.into_iter().map(|place| (place.clone(), place)).collect()
}

/// Returns the ranges between the common beginning and the common end.
fn middle(said: &[u8], shadow: &[u8]) -> (Range<usize>, Range<usize>) {
    let start = common(said.iter(), shadow.iter());
    let end = common(said[start..].iter().rev(), shadow[start..].iter().rev());
    (start..said.len() - end, start..shadow.len() - end)
}

/// Returns the number of equal bytes before the first difference.
fn common<'a>(one: impl Iterator<Item = &'a u8>, other: impl Iterator<Item = &'a u8>) -> usize {
    one.zip(other).take_while(|(one, other)| one == other).count()
}

fn hex_of(body: &[u8], place: &Range<usize>) -> String {
    hex::encode(&body[place.start..place.end.min(place.start + PART_LEN)])
}

/// Returns a value as it is shown beside another one: whole, or the part around the first difference.
fn excerpt(value: &[u8], other: Option<&[u8]>) -> String {
    let length = value.len();
    if length <= VALUE_LEN {
        return text(value);
    }
    let first = other.map_or(0, |other| common(value.iter(), other.iter()));
    let start = first.saturating_sub(BEFORE);
    let end = length.min(start + VALUE_LEN);
    let (before, after) = (if start > 0 { "…" } else { "" }, if end < length { "…" } else { "" });
    format!("{before}{}{after} ({length} bytes)", text(&value[start..end]))
}

fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(is_hidden) => text.to_owned(),
        _ => format!("hex {}", hex::encode(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use reqwest::{Method, Url};

    use super::*;
    use carillon_policy::binding::Redirects;

    fn request(headers: &[(&'static str, &str)], body: &[u8]) -> Outgoing {
        let header = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().map(header) {
            map.append(name, value);
        }
        Outgoing {
            method: Method::POST,
            url: Url::parse("http://a/b?c=d").unwrap(),
            headers: map,
            auth_headers: Vec::new(),
            client_key: None,
            bound_keys: Vec::new(),
            egress: None,
            body: Bytes::copy_from_slice(body),
            timeout: Duration::ZERO,
            redirects: Redirects::default(),
        }
    }

    fn body(said: &[u8], shadow: &[u8]) -> BodyChange {
        BodyChange::between(said, shadow).unwrap()
    }

    fn part(offset: usize, said: &[u8], shadow: &[u8]) -> BodyPart {
        let (said_length, shadow_length) = (said.len(), shadow.len());
        BodyPart { offset, said_length, shadow_length, said_hex: hex::encode(said), shadow_hex: hex::encode(shadow) }
    }

    #[test]
    fn what_is_the_same_is_not_said() {
        let same = request(&[("a", "1")], b"x");
        let changes = RequestChanges::between(&same, &same.clone());
        let none = RequestChanges { method: None, url: None, headers: Vec::new(), header_order: None, body: None };
        assert_eq!(changes, none);
    }

    #[test]
    fn method_url_and_headers_are_told_apart() {
        let said = request(&[("a", "1"), ("b", "1"), ("b", "2"), ("d", "é")], b"");
        let mut shadow = request(&[("b", "1"), ("a", "1"), ("c", "3"), ("d", "e")], b"");
        shadow.method = Method::PUT;
        shadow.url = Url::parse("http://a/b?c=e").unwrap();
        let changes = RequestChanges::between(&said, &shadow);
        let change = |said: &str, shadow: &str| Some(TextChange { said: said.into(), shadow: shadow.into() });
        assert_eq!(changes.method, change("POST", "PUT"));
        assert_eq!(changes.url, change("http://a/b?c=d", "http://a/b?c=e"));
        let header = |name: &str, said: &[&str], shadow: &[&str]| {
            let [said, shadow] = [said, shadow].map(|values| values.iter().map(|&it| it.to_owned()).collect());
            HeaderChange { name: name.to_owned(), said, shadow }
        };
        let expected = [header("b", &["1", "2"], &["1"]), header("d", &["é"], &["e"]), header("c", &[], &["3"])];
        assert_eq!(changes.headers, expected);
        let order = changes.header_order.unwrap();
        assert_eq!(
            (order.said, order.shadow),
            (vec!["a".into(), "b".into(), "d".into()], vec!["b".into(), "a".into(), "c".into(), "d".into()])
        );
    }

    #[test]
    fn a_long_value_is_shown_where_it_differs() {
        let (said, shadow) = ("a".repeat(2_000), format!("{}b", "a".repeat(1_999)));
        let change = TextChange::between(&said, &shadow).unwrap();
        assert_eq!(change.said, format!("…{} (2000 bytes)", "a".repeat(33)));
        assert_eq!(change.shadow, format!("…{}b (2000 bytes)", "a".repeat(32)));
        assert_eq!(excerpt(&said.into_bytes(), None).chars().filter(|it| *it == 'a').count(), VALUE_LEN);
        assert_eq!(text(b"\xff\0"), "hex ff00");
    }

    #[test]
    fn bodies_of_one_length_are_compared_place_by_place() {
        let change = body(b"0123456789abcdefghij", b"0x23456789abcdefghiJ");
        assert_eq!((change.said_length, change.shadow_length, change.more), (20, 20, 0));
        assert_eq!(change.parts, [part(1, b"1", b"x"), part(19, b"j", b"J")]);
        assert_eq!(body(b"0123456789", b"x12345x789").parts, [part(0, b"0123456", b"x12345x")], "close ones are one");
        let many = |first: u8| [first, 1, 1, 1, 1, 1, 1, 1, 1, 1].repeat(20);
        let change = body(&many(2), &many(3));
        assert_eq!((change.parts.len(), change.more), (PARTS, 4));
    }

    #[test]
    fn of_others_it_is_what_is_between_beginning_and_end() {
        assert_eq!(body(b"abcXYdef", b"abcZdef").parts, [part(3, b"XY", b"Z")]);
        assert_eq!(body(b"aaa", b"aaaa").parts, [part(3, b"", b"a")]);
        assert_eq!(body(b"", b"ab").parts, [part(0, b"", b"ab")]);
        let (said, shadow) = ([1; 100], [2; 90]);
        let change = body(&said, &shadow);
        assert_eq!((change.parts[0].said_length, change.parts[0].shadow_length), (100, 90));
        assert_eq!(change.parts[0].said_hex, "01".repeat(PART_LEN));
    }
}
