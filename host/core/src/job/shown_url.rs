//! Hides passwords in URLs: a reader of a job need not know the password of its receiver.

use url::Url;

/// Text that replaces a password.
pub const HIDDEN_PASSWORD: &str = "***";

/// Returns a URL with its password hidden, if it has one.
#[must_use]
pub fn shown_url(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => match parsed.set_password(Some(HIDDEN_PASSWORD)) {
            Ok(()) => parsed.into(),
            // The URL has no host, and so no user info.
            Err(()) => url.to_owned(),
        },
        _ => url.to_owned(),
    }
}

/// Returns a job document in JSON with the password of its `url` hidden.
///
/// All other bytes stay the same, if possible.
#[must_use]
pub fn shown_document(document: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Doc {
        url: String,
    }
    let Ok(Doc { url }) = serde_json::from_str(document) else { return document.to_owned() };
    let shown = shown_url(&url);
    if shown == url {
        return document.to_owned();
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let replaced = document.replace(&quoted(&url), &quoted(&shown));
    if replaced != document {
        return replaced;
    }
    // The client has written some characters of the URL as escapes.
    let mut value: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
    value["url"] = shown.into();
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_hidden_and_nothing_else_changes() {
        for (url, shown) in [
            ("http://user:secret@h/p?q#f", "http://user:***@h/p?q#f"),
            ("https://:secret@h:81/", "https://:***@h:81/"),
            ("http://user@h/", "http://user@h/"),
            ("http://h/a:b@c", "http://h/a:b@c"),
            ("no url", "no url"),
        ] {
            assert_eq!(shown_url(url), shown);
        }
    }

    #[test]
    fn document_keeps_its_bytes_around_the_url() {
        let document = r#"{ "payload": 1.10, "url": "http://u:secret@h/", "z": 12345678901234567890123 }"#;
        assert_eq!(shown_document(document), document.replace("secret", "***"));
        assert!(!shown_document(r#"{"url": "http:\/\/u:secret@h/"}"#).contains("secret"));
        assert!(!shown_document(r#"{"url": "http://u:s\u0065cret@h/"}"#).contains("cret"));
        for same in [r#"{ "url": "http://h/" }"#, "{}", "7"] {
            assert_eq!(shown_document(same), same);
        }
    }
}
