//! Templates: text with placeholders in braces, such as `{timestamp}.{body}`. `{{` and `}}` stand for a brace.
//!
//! A template is parsed when a config is read, so a placeholder that does not exist is an error of the config. Pure.

use serde::{Deserialize, Deserializer};

/// Placeholders without an argument, as a config names them.
const NAMES: [(&str, Placeholder); 11] = [
    ("body", Placeholder::Body),
    ("timestamp", Placeholder::Timestamp),
    ("timestamp_ms", Placeholder::TimestampMs),
    ("job_id", Placeholder::JobId),
    ("attempt", Placeholder::Attempt),
    ("method", Placeholder::Method),
    ("url", Placeholder::Url),
    ("path", Placeholder::Path),
    ("form", Placeholder::Form),
    ("signature", Placeholder::Signature),
    ("signatures", Placeholder::Signatures),
];

/// Beginning of the placeholder of a header; the header's name follows.
const HEADER: &str = "header.";

/// A value that takes the place of a name in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// Body of the request.
    Body,
    /// Time of the attempt in whole seconds since 1970.
    Timestamp,
    /// The same in milliseconds.
    TimestampMs,
    /// Id of the job.
    JobId,
    /// Number of the attempt.
    Attempt,
    /// Method of the request.
    Method,
    /// URL of the request.
    Url,
    /// Path of the URL, with the query.
    Path,
    /// Names and values of a form's fields in the order of the names, without separators.
    Form,
    /// Value of the header with this name; empty without one.
    Header(String),
    /// Signature of the newest key.
    Signature,
    /// Signatures of all keys.
    Signatures,
}

impl Placeholder {
    /// Returns whether the value is known only when the content has been signed.
    pub fn is_signature(&self) -> bool {
        matches!(self, Self::Signature | Self::Signatures)
    }
}

/// Part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that stays as it is.
    Text(String),
    /// Place of a value.
    Value(Placeholder),
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// Returns one sentence that names a placeholder that does not exist, or a brace without its counterpart.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                plain.push_str(&from[..1]);
                rest = after;
                continue;
            }
            let Some((name, after)) = from.strip_prefix('{').and_then(|from| from.split_once('}')) else {
                return Err(format!(
                    "`{text}` has a brace without its counterpart; write `{{{{` or `}}}}` for a brace"
                ));
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Value(placeholder(name)?));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// Returns the placeholders.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|part| if let Part::Value(placeholder) = part { Some(placeholder) } else { None })
    }

    /// Returns the text with the values in their places.
    pub fn render(&self, mut value: impl FnMut(&Placeholder, &mut Vec<u8>)) -> Vec<u8> {
        let mut rendered = Vec::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => rendered.extend_from_slice(text.as_bytes()),
                Part::Value(placeholder) => value(placeholder, &mut rendered),
            }
        }
        rendered
    }
}

fn placeholder(name: &str) -> Result<Placeholder, String> {
    if let Some((_, placeholder)) = NAMES.into_iter().find(|(known, _)| *known == name) {
        return Ok(placeholder);
    }
    match name.strip_prefix(HEADER) {
        Some(header) if !header.is_empty() => Ok(Placeholder::Header(header.to_ascii_lowercase())),
        _ => {
            let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
            Err(format!("`{{{name}}}` is no placeholder; known are {} and {HEADER}NAME", known.join(", ")))
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(template: &Template) -> Vec<u8> {
        template.render(|placeholder, rendered| rendered.extend_from_slice(format!("<{placeholder:?}>").as_bytes()))
    }

    #[test]
    fn placeholders_and_braces_are_parsed() {
        let template = Template::parse("v0:{timestamp}:{{{body}}}{header.X-A}").expect("a template");
        assert_eq!(names(&template), b"v0:<Timestamp>:{<Body>}<Header(\"x-a\")>");
        assert_eq!(template.placeholders().count(), 3);
    }

    #[test]
    fn unknown_placeholder_is_named_with_those_that_exist() {
        for text in ["{bdy}", "{}", "{header.}", "{ body }"] {
            let error = Template::parse(text).expect_err(text);
            assert!(error.starts_with(&format!("`{text}` is no placeholder; known are body, timestamp,")), "{error}");
        }
        for text in ["{body", "body}", "{a}}{"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_with_doubled_braces_stays_as_it_is(text in ".{0,40}") {
            let doubled = text.replace('{', "{{").replace('}', "}}");
            let template = Template::parse(&doubled).expect("no placeholder");
            prop_assert_eq!(names(&template), text.into_bytes());
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "[{}a-z.]{0,20}") {
            let _ = Template::parse(&text);
        }
    }
}
