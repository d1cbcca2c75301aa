//! Statuses as a config names them: a code, a class or a range.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// An inclusive range of HTTP statuses, written as `204`, `"204"`, `"2xx"` or `"200-299"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

/// The statuses that HTTP can carry (RFC 9110, section 15).
const POSSIBLE: std::ops::RangeInclusive<u16> = 100..=599;

impl StatusRange {
    /// All statuses of a class; `class` is 1 to 5.
    pub(crate) const fn class(class: u16) -> Self {
        Self { first: class * 100, last: class * 100 + 99 }
    }

    /// Whether the range holds the status.
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }

    fn new(first: u16, last: u16) -> Option<Self> {
        (POSSIBLE.contains(&first) && POSSIBLE.contains(&last) && first <= last).then_some(Self { first, last })
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(class) = text.to_ascii_lowercase().strip_suffix("xx") {
            return class.parse().ok().filter(|class| (1..=5).contains(class)).map(Self::class);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(code(first)?, code(last)?)
    }
}

/// Three digits; `parse` alone would take a sign, too.
fn code(text: &str) -> Option<u16> {
    let text = text.trim();
    if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else if *self == Self::class(self.first / 100) {
            write!(formatter, "{}xx", self.first / 100)
        } else {
            write!(formatter, "{}-{}", self.first, self.last)
        }
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusVisitor)
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = StatusRange;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a status such as 204, \"2xx\" or \"200-299\", or a list of them")
    }

    fn visit_u64<E: Error>(self, code: u64) -> Result<StatusRange, E> {
        let code = u16::try_from(code).ok().and_then(|code| StatusRange::new(code, code));
        code.ok_or_else(|| E::custom("a status must be a number from 100 to 599"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<StatusRange, E> {
        StatusRange::parse(text).ok_or_else(|| {
            E::custom(format_args!("`{text}` is not a status: write a code such as 204, a class such as \"2xx\" or a range such as \"200-299\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::StatusRange;

    fn parse(json: &str) -> Result<StatusRange, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn codes_classes_and_ranges_are_statuses() {
        for (json, inside, outside, printed) in [
            ("204", [204, 204], [203, 205], "204"),
            ("\"204\"", [204, 204], [203, 205], "204"),
            ("\"2xx\"", [200, 299], [199, 300], "2xx"),
            ("\"4XX\"", [400, 499], [399, 500], "4xx"),
            ("\"200-204\"", [200, 204], [199, 205], "200-204"),
            ("\"500 - 599\"", [500, 599], [499, 600], "5xx"),
        ] {
            let range = parse(json).expect(json);
            assert!(inside.iter().all(|status| range.contains(*status)), "{json}");
            assert!(!outside.iter().any(|status| range.contains(*status)), "{json}");
            assert_eq!(range.to_string(), printed);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for json in [
            "99",
            "600",
            "70000",
            "-1",
            "20.5",
            "\"6xx\"",
            "\"0xx\"",
            "\"xx\"",
            "\"299-200\"",
            "\"+20\"",
            "\"2000\"",
            "\"\"",
            "\"ok\"",
            "true",
            "null",
        ] {
            assert!(parse(json).is_err(), "{json}");
        }
    }
}
