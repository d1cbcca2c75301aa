//! Results of changes in words, and changes of a part, which create what does not exist.

use reqwest::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::Session;
use carillon_client::ClientError;
use carillon_client::answer::Answer;

/// Members of a response that name the differences, and the words that are printed for them.
const CHANGES: [&str; 3] = ["removed", "added", "changed"];

/// Formats what was removed, added and changed: ` (removed: sign; changed: judge)`. Empty if nothing was.
pub(super) fn told(answer: &Value) -> String {
    let list = |key: &&str| {
        let names: Vec<_> = answer[*key].as_array()?.iter().filter_map(Value::as_str).collect();
        (!names.is_empty()).then(|| format!("{key}: {}", names.join(", ")))
    };
    let all: Vec<_> = CHANGES.iter().filter_map(list).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join("; ")) }
}

/// Returns the warnings of a response.
pub(super) fn warnings(answer: &Value) -> Vec<String> {
    let warnings = answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    warnings.map(|warning| format!("warning: {warning}")).collect()
}

impl Session {
    /// Prints the result of a change: `text` with the differences, and the warnings.
    pub(super) fn changed(&self, answer: &Answer, text: &str) -> anyhow::Result<()> {
        self.done(answer, &format!("{text}{}", told(answer)))?;
        warnings(answer).iter().try_for_each(|warning| self.out.note(warning))
    }

    /// Changes the settings that a document names of the object at a path, or creates the object.
    pub(super) async fn put_part(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        part: &impl Serialize,
    ) -> Result<Answer, ClientError> {
        match self.client.patch(path, query, part).await {
            Err(ClientError::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {
                self.client.put_to(path, query, part).await
            }
            answer => answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_told_by_name() {
        let answer = json!({"removed": ["sign", "retry"], "added": [], "changed": ["judge"], "warnings": ["look"]});
        assert_eq!(told(&answer), " (removed: sign, retry; changed: judge)");
        assert_eq!(warnings(&answer), ["warning: look"]);
        assert_eq!(told(&json!({"removed": []})), "");
    }
}
