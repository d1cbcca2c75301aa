//! Headers of a job: input, patches and view.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Ref, Type};
use utoipa::openapi::{RefOr, Schema};

use super::error::IntakeError;
use carillon_core::limits::{RequestLimits, json_len};
use carillon_policy::binding::pointer_to;
use carillon_policy::check_job_header;

/// Largest number of headers of a job.
const MAX_HEADERS: usize = 64;

/// Headers that a request has at most once: a receiver would take one of two, or refuse both (RFC 9110, section 5.3).
const SINGLE: [&str; 10] = [
    "authorization",
    "content-location",
    "content-type",
    "date",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "referer",
    "user-agent",
];

/// Header of a request or a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct HeaderView {
    /// Name of the header.
    pub name: String,
    /// Value of the header.
    pub value: String,
}

impl From<(String, String)> for HeaderView {
    fn from((name, value): (String, String)) -> Self {
        Self { name, value }
    }
}

/// Headers in a client's input: an object of values by name, or a list in which a name may be repeated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeadersInput {
    headers: Vec<(String, String)>,
    form: Form,
}

/// Form in which the headers were written; it decides the JSON pointers of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Object,
    List,
}

impl From<Vec<(String, String)>> for HeadersInput {
    fn from(headers: Vec<(String, String)>) -> Self {
        Self { headers, form: Form::List }
    }
}

impl HeadersInput {
    /// Returns whether there are no headers.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    /// Returns the headers in their order, unchecked.
    pub fn as_given(&self) -> Vec<(String, String)> {
        self.headers.clone()
    }

    /// Adds a header.
    pub fn push(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Returns the size of the headers as JSON.
    pub(super) fn json_len(&self) -> usize {
        json_len(&self.headers)
    }

    /// Checks the size of each value, and of all names and values together.
    pub(super) fn check_sizes(&self, limits: &RequestLimits) -> Result<(), IntakeError> {
        let mut sum = 0_usize;
        for (index, (name, value)) in self.headers.iter().enumerate() {
            limits.header.check("header", self.pointer(index), value.len())?;
            sum = sum.saturating_add(name.len()).saturating_add(value.len());
        }
        Ok(limits.headers.check("headers", "/headers", sum)?)
    }

    /// Returns the headers in their order, if all of them can be sent.
    pub(super) fn checked(&self) -> Result<Vec<(String, String)>, IntakeError> {
        if self.headers.len() > MAX_HEADERS {
            return Err(IntakeError::invalid("/headers", format!("`headers` must have at most {MAX_HEADERS} entries")));
        }
        for (index, (name, value)) in self.headers.iter().enumerate() {
            check_job_header(name, value.as_bytes())
                .map_err(|message| IntakeError::invalid(self.pointer(index), message))?;
            let earlier = self.headers.iter().take(index).find(|(earlier, _)| earlier.eq_ignore_ascii_case(name));
            if let Some((earlier, _)) = earlier
                && let Some(rule) = self.refusal_of_second(earlier, name)
            {
                return Err(IntakeError::invalid(self.pointer(index), rule));
            }
        }
        Ok(self.headers.clone())
    }

    /// Returns why a header must not occur twice; `None` if it may.
    fn refusal_of_second(&self, earlier: &str, name: &str) -> Option<String> {
        let shown = name.escape_debug();
        if SINGLE.iter().any(|single| single.eq_ignore_ascii_case(name)) {
            return Some(format!("the header `{shown}` is given twice; a request can have it only once"));
        }
        if self.form == Form::Object || earlier != name {
            let earlier = earlier.escape_debug();
            return Some(format!(
                "`{earlier}` and `{shown}` are the same header; to send it twice, give `headers` as a list with one spelling of the name"
            ));
        }
        None
    }

    fn pointer(&self, index: usize) -> String {
        match (self.form, self.headers.get(index)) {
            (Form::Object, Some((name, _))) => format!("/headers{}", pointer_to(name)),
            _ => format!("/headers/{index}"),
        }
    }

    /// Returns these headers after a patch: an object changes them by name, with null to remove one; a list replaces them.
    #[must_use]
    pub fn patched(self, patch: HeadersPatch) -> Self {
        let changes = match patch {
            HeadersPatch::All(headers) => return headers,
            HeadersPatch::Some(changes) => changes,
        };
        let is_changed = |name: &str| changes.iter().any(|(changed, _)| changed.eq_ignore_ascii_case(name));
        let mut headers: Vec<_> = self.headers.into_iter().filter(|(name, _)| !is_changed(name)).collect();
        headers.extend(changes.into_iter().filter_map(|(name, value)| Some((name, value?))));
        Self { headers, form: Form::Object }
    }
}

/// Patch of headers.
#[derive(Debug, PartialEq, Eq)]
pub enum HeadersPatch {
    /// Replaces all headers.
    All(HeadersInput),
    /// Changes headers by name; `None` removes one.
    Some(Vec<(String, Option<String>)>),
}

/// Element of a list: an object, or a pair as in earlier responses of this API.
#[derive(Deserialize)]
#[serde(untagged, expecting = "an object with `name` and `value`, or a pair of both")]
enum Element {
    Object(Named),
    Pair(String, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    value: String,
}

struct Headers;

impl<'de> Visitor<'de> for Headers {
    type Value = HeadersInput;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of header values by name, or a list of objects with `name` and `value`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeadersInput, A::Error> {
        let mut headers = Vec::new();
        while let Some(header) = map.next_entry()? {
            headers.push(header);
        }
        Ok(HeadersInput { headers, form: Form::Object })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<HeadersInput, A::Error> {
        let mut headers = Vec::new();
        while let Some(element) = list.next_element()? {
            headers.push(match element {
                Element::Object(Named { name, value }) | Element::Pair(name, value) => (name, value),
            });
        }
        Ok(HeadersInput { headers, form: Form::List })
    }
}

impl<'de> Deserialize<'de> for HeadersInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Headers)
    }
}

impl<'de> Deserialize<'de> for HeadersPatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Patch;
        impl<'de> Visitor<'de> for Patch {
            type Value = HeadersPatch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Headers.expecting(f)
            }

            fn visit_unit<E: de::Error>(self) -> Result<HeadersPatch, E> {
                Ok(HeadersPatch::All(HeadersInput::default()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeadersPatch, A::Error> {
                let mut changes = Vec::new();
                while let Some(change) = map.next_entry()? {
                    changes.push(change);
                }
                Ok(HeadersPatch::Some(changes))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<HeadersPatch, A::Error> {
                Headers.visit_seq(list).map(HeadersPatch::All)
            }
        }
        deserializer.deserialize_any(Patch)
    }
}

/// The schema of headers in requests.
pub fn headers_schema() -> impl Into<RefOr<Schema>> {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::from(Schema::Object(text.build()))))
        .description(Some("Values of headers, by name."));
    let list = ArrayBuilder::new()
        .items(Ref::from_schema_name("HeaderView"))
        .description(Some("Headers in the order in which they are sent; a name may be repeated."));
    Schema::OneOf(OneOfBuilder::new().item(object).item(list).build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn checked(doc: Value) -> Result<Vec<(String, String)>, String> {
        let headers: HeadersInput = serde_json::from_value(doc).map_err(|error| error.to_string())?;
        headers.checked().map_err(|error| error.to_string())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn object_list_and_pairs_mean_the_same() {
        let expected = Ok(pairs(&[("X-A", "1"), ("X-B", "2")]));
        assert_eq!(checked(json!({"X-A": "1", "X-B": "2"})), expected);
        assert_eq!(checked(json!([{"name": "X-A", "value": "1"}, {"name": "X-B", "value": "2"}])), expected);
        assert_eq!(checked(json!([["X-A", "1"], ["X-B", "2"]])), expected);
        assert_eq!(checked(json!([])), Ok(Vec::new()));
    }

    #[test]
    fn list_repeats_a_header() {
        let twice = json!([{"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]);
        assert_eq!(checked(twice), Ok(pairs(&[("X-A", "1"), ("X-A", "2")])));
    }

    #[test]
    fn names_that_differ_in_case_only_are_refused() {
        assert!(checked(json!({"X-A": "1", "x-a": "2"})).unwrap_err().contains("`X-A` and `x-a` are the same header"));
        assert!(checked(json!([["X-A", "1"], ["x-a", "2"]])).unwrap_err().contains("are the same header"));
        assert!(
            checked(json!([["Content-Type", "a/b"], ["Content-Type", "a/c"]])).unwrap_err().contains("given twice")
        );
        let repeated: HeadersInput = serde_json::from_str(r#"{"X-A": "1", "X-A": "2"}"#).unwrap();
        assert!(repeated.checked().unwrap_err().to_string().contains("are the same header"));
    }

    #[test]
    fn other_forms_are_refused() {
        for other in [
            json!(null),
            json!("X-A: 1"),
            json!(1),
            json!([["X-A"]]),
            json!([{"name": "X-A"}]),
            json!({"X-A": 1}),
            json!(["X-A"]),
        ] {
            assert!(serde_json::from_value::<HeadersInput>(other.clone()).is_err(), "{other}");
        }
    }

    #[test]
    fn patch_changes_by_name_without_regard_to_case_or_replaces_all() {
        let before = HeadersInput::from(pairs(&[("X-Old", "1"), ("X-Kept", "2"), ("X-Old", "3")]));
        let patched = |patch: Value| before.clone().patched(serde_json::from_value(patch).unwrap()).headers;
        assert_eq!(patched(json!({"x-old": null, "X-New": "4"})), pairs(&[("X-Kept", "2"), ("X-New", "4")]));
        assert_eq!(patched(json!([["X-New", "4"]])), pairs(&[("X-New", "4")]));
        assert_eq!(patched(json!(null)), pairs(&[]));
        assert_eq!(patched(json!({})), pairs(&[("X-Old", "1"), ("X-Kept", "2"), ("X-Old", "3")]));
    }
}
