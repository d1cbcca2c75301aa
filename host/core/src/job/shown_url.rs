//! Hides credentials in URLs: a reader of a job need not know the password of its receiver.

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

/// Endings of the names of headers and query parameters whose values are credentials.
const SECRET_ENDINGS: [&str; 7] = ["key", "token", "secret", "signature", "password", "authorization", "cookie"];

/// Returns whether a header or query parameter of this name has a credential as its value.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    SECRET_ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Returns a URL for people who may see no credentials: without user info, and with the values of query parameters hidden whose names say that
/// they are credentials ([`is_secret_name`]).
#[must_use]
pub fn outlined_url(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return url.to_owned() };
    let has_user = !parsed.username().is_empty() || parsed.password().is_some();
    let is_hidden = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let name = url::form_urlencoded::parse(name.as_bytes()).next();
        !value.is_empty() && name.is_some_and(|(name, _)| is_secret_name(&name))
    };
    let has_secret = parsed.query().is_some_and(|query| query.split('&').any(is_hidden));
    if !has_user && !has_secret {
        return url.to_owned();
    }
    if has_secret {
        let hide = |part: &str| match part.split_once('=').filter(|_| is_hidden(part)) {
            Some((name, _)) => format!("{name}={HIDDEN_PASSWORD}"),
            None => part.to_owned(),
        };
        let query = parsed.query().map(|query| query.split('&').map(hide).collect::<Vec<_>>().join("&"));
        parsed.set_query(query.as_deref());
    }
    if parsed.set_username("").and_then(|()| parsed.set_password(None)).is_err() {
        // The URL has no host, and so no user info.
        return parsed.into();
    }
    parsed.into()
}

/// Returns a URL without its user info, query and fragment; the empty text if it is none.
#[must_use]
pub fn bare_url(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else { return String::new() };
    let has_user = !parsed.username().is_empty() || parsed.password().is_some();
    if !has_user && parsed.query().is_none() && parsed.fragment().is_none() {
        return url.to_owned();
    }
    parsed.set_query(None);
    parsed.set_fragment(None);
    // A URL without a host has no user info.
    let _ = parsed.set_username("").and_then(|()| parsed.set_password(None));
    parsed.into()
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
    fn bare_url_has_no_credentials() {
        for (url, expected) in [
            ("http://h/p", "http://h/p"),
            ("HTTP://H/p", "HTTP://H/p"),
            ("https://u:p@h:8443/p/q?api_key=x#f", "https://h:8443/p/q"),
            ("https://h/?a", "https://h/"),
            ("nonsense", ""),
        ] {
            assert_eq!(bare_url(url), expected);
        }
    }

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
    fn outline_of_a_url_has_no_credentials() {
        for (url, outlined) in [
            ("http://user:secret@h/p?q=1#f", "http://h/p?q=1#f"),
            ("http://user@h/", "http://h/"),
            ("http://h/?api_key=s3cret&a=1&X-Amz-Signature=s3cret", "http://h/?api_key=***&a=1&X-Amz-Signature=***"),
            ("http://h/?access%5Ftoken=s3cret&Client-Secret=s3cret", "http://h/?access%5Ftoken=***&Client-Secret=***"),
            ("http://h/?PASSWORD=&keys=2&token", "http://h/?PASSWORD=&keys=2&token"),
            ("http://h/a%2Fb?x=%20", "http://h/a%2Fb?x=%20"),
            ("no url", "no url"),
        ] {
            assert_eq!(outlined_url(url), outlined);
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
