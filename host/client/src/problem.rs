//! A refusal of the server, as one line.

use std::fmt;

use reqwest::StatusCode;
use serde::Deserialize;

use super::text::visible;

/// A refusal, in the form of RFC 9457.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// Stable, for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of thing is wrong.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What is wrong this time.
    pub detail: String,
    /// A JSON pointer to the field that is meant, if it is only one.
    pub pointer: Option<String>,
    /// Each field that is wrong.
    pub errors: Vec<FieldProblem>,
}

/// A field that is wrong.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct FieldProblem {
    /// A JSON pointer to it.
    pub pointer: String,
    /// What is wrong with it.
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
            parts.push("give a token with --token or CARILLON_TOKEN".to_owned());
        }
        f.write_str(&visible(&parts.join(": ")))
    }
}
