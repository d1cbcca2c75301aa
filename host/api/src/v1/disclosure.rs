//! Who sees what jobs carry: the one rule for every view.
//!
//! Whoever may make jobs sees payloads, requests and the values of headers. Viewers see that they are there, and how large: clients put
//! credentials into headers and personal data into payloads. The values of keys are shown to nobody.

use std::collections::BTreeMap;

use serde_json::value::{RawValue, to_raw_value};

use super::super::auth::Access;
use carillon_catalog::AccessRole;
use carillon_core::job::{is_secret_name, outlined_url};
use carillon_engine::intake::headers::{HeaderView, HeadersInput};

/// What a viewer sees in place of the value of a header.
const HIDDEN: &str = "(hidden)";

/// Headers whose values say what a request is, and never who sends it.
const HARMLESS: [&str; 6] =
    ["accept", "accept-language", "content-encoding", "content-language", "content-type", "user-agent"];

/// How much a view shows of what a job carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disclosure {
    /// All but keys.
    Contents,
    /// That it is there.
    Outline,
}

impl From<&Access> for Disclosure {
    fn from(access: &Access) -> Self {
        if access.role >= AccessRole::Producer { Self::Contents } else { Self::Outline }
    }
}

impl Disclosure {
    /// A header as it is shown.
    pub(super) fn header(self, header: (String, String)) -> HeaderView {
        let shown = HeaderView::from(header);
        let is_harmless = HARMLESS.iter().any(|name| name.eq_ignore_ascii_case(&shown.name));
        if self == Self::Contents || is_harmless { shown } else { HeaderView { value: HIDDEN.to_owned(), ..shown } }
    }

    /// Returns a header of a response as it is shown: an outline hides the values of those that carry credentials, such as `Set-Cookie`.
    pub(super) fn response_header(self, header: HeaderView) -> HeaderView {
        let is_hidden = self == Self::Outline && is_secret_name(&header.name);
        if is_hidden { HeaderView { value: HIDDEN.to_owned(), ..header } } else { header }
    }

    /// Returns a URL as it is shown: to an outline belong neither user info nor credentials in the query.
    pub(super) fn url(self, url: &str) -> String {
        if self == Self::Contents { url.to_owned() } else { outlined_url(url) }
    }

    /// A job's document as it is shown: without payloads and values of headers, those of the jobs that follow included.
    pub(super) fn document(self, text: &str) -> serde_json::Result<Box<RawValue>> {
        match self {
            Self::Contents => RawValue::from_string(text.to_owned()),
            Self::Outline => to_raw_value(&outlined(text)?),
        }
    }
}

/// The fields of a job's document, as they are written.
type Fields = BTreeMap<String, Box<RawValue>>;

fn outlined(text: &str) -> serde_json::Result<Fields> {
    let mut fields: Fields = serde_json::from_str(text)?;
    for (field, value) in &mut fields {
        match field.as_str() {
            "payload" | "payload_text" | "payload_base64" => *value = to_raw_value(HIDDEN)?,
            "headers" => {
                let headers: HeadersInput = serde_json::from_str(value.get())?;
                let headers = headers.as_given().into_iter().map(|header| Disclosure::Outline.header(header));
                *value = to_raw_value(&headers.collect::<Vec<_>>())?;
            }
            "url" => {
                let url: Option<String> = serde_json::from_str(value.get())?;
                *value = to_raw_value(&url.map(|url| outlined_url(&url)))?;
            }
            "on_success" | "on_failure" if value.get() != "null" => *value = to_raw_value(&outlined(value.get())?)?,
            _ => {}
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn outline_of_a_document_has_no_payload_and_no_credentials() {
        let job = json!({
            "url": "http://u:s3cret@x/?api_key=s3cret&a=1", "payload": {"card": "4111"}, "headers": {"Authorization": "Bearer s3cret", "Content-Type": "a/b"},
            "on_success": {"url": "http://y/", "payload_text": "s3cret", "on_failure": {"headers": [["X-Key", "s3cret"]]}},
        });
        let text = job.to_string();
        assert_eq!(Disclosure::Contents.document(&text).unwrap().get(), text);
        let outline = Disclosure::Outline.document(&text).unwrap();
        assert!(!outline.get().contains("s3cret") && !outline.get().contains("4111"), "{outline}");
        let outline: Value = serde_json::from_str(outline.get()).unwrap();
        assert_eq!(outline["url"], "http://x/?api_key=***&a=1");
        assert_eq!(outline["headers"][1], json!({"name": "Content-Type", "value": "a/b"}));
        assert_eq!(outline["on_success"]["on_failure"]["headers"][0]["name"], "X-Key");
    }
}
