//! Problem that the server returned, printed as one line.

use std::fmt;

use reqwest::StatusCode;
use serde::Deserialize;

use super::text::visible;

/// Problem in the form of RFC 9457.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// Stable type, for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// Title, the same for all problems of the type.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Description of this occurrence.
    pub detail: String,
    /// JSON pointer to the offending field, if there is only one.
    pub pointer: Option<String>,
    /// All offending fields.
    pub errors: Vec<FieldProblem>,
}

/// Offending field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FieldProblem {
    /// JSON pointer to the field.
    pub pointer: String,
    /// Description of the error.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> =
            [&self.title, &self.detail].into_iter().filter(|text| !text.is_empty()).cloned().collect();
        parts.dedup();
        parts.extend(self.pointer.clone());
        let told = |field: &&FieldProblem| field.detail != self.detail || self.pointer.as_ref() != Some(&field.pointer);
        parts.extend(self.errors.iter().filter(told).map(|field| format!("{} {}", field.pointer, field.detail)));
        if self.status == StatusCode::UNAUTHORIZED.as_u16() {
            parts.push("pass a token with --token or CARILLON_TOKEN".to_owned());
        }
        f.write_str(&visible(&parts.join(": ")))
    }
}
