//! Origins that a key is bound to: where requests may go that it signs, or that carry it. Pure.

use std::sync::Arc;

use url::Url;

use carillon_core::json::Unreadable;

/// Largest number of origins of a key.
const MAX_ORIGINS: usize = 100;

/// Origins (scheme, host and port) that a key may go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyOrigins(Arc<[String]>);

impl KeyOrigins {
    /// Parses origins such as `https://hooks.example:8443`, in any order.
    ///
    /// # Errors
    /// Returns [`Unreadable`] with the index of the text that is not an origin, or for too many of them.
    pub fn parse(texts: &[String]) -> Result<Self, Unreadable> {
        if texts.len() > MAX_ORIGINS {
            let message = format!("`origins` must have at most {MAX_ORIGINS} members");
            return Err(Unreadable { pointer: String::new(), message });
        }
        let parse = |(index, text): (usize, &String)| {
            origin(text).ok_or_else(|| {
                let message =
                    format!("`{}` is not an origin such as `https://hooks.example:8443`", text.escape_debug());
                Unreadable { pointer: format!("/{index}"), message }
            })
        };
        let mut origins = texts.iter().enumerate().map(parse).collect::<Result<Vec<_>, _>>()?;
        origins.sort();
        origins.dedup();
        Ok(Self(origins.into()))
    }

    /// Returns whether a request to `url` may be signed with the key, or carry it.
    #[must_use]
    pub fn contains(&self, url: &Url) -> bool {
        let origin = url.origin();
        origin.is_tuple() && self.0.binary_search(&origin.ascii_serialization()).is_ok()
    }

    /// Returns the origins in their canonical form, sorted.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.0
    }
}

/// Returns the canonical form of an origin; `None` if the text has any other part of a URL.
fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    let is_bare = is_bare && url.fragment().is_none() && url.path() == "/";
    (["http", "https"].contains(&url.scheme()) && is_bare).then(|| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(texts: &[&str]) -> Result<KeyOrigins, Unreadable> {
        KeyOrigins::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn origins_are_scheme_host_and_port_in_canonical_form() {
        let bound = origins(&["HTTPS://Hooks.Example:8443/", "https://a:443", "http://[::1]:80", "https://a"]).unwrap();
        assert_eq!(bound.texts(), ["http://[::1]", "https://a", "https://hooks.example:8443"]);
        for (url, expected) in [
            ("https://hooks.example:8443/x?y", true),
            ("https://u:p@hooks.example:8443/", true),
            ("https://hooks.example/", false),
            ("http://hooks.example:8443/", false),
            ("https://hooks.example.:8443/", false),
            ("https://a/x", true),
            ("https://a:80/", false),
            ("http://a/", false),
            ("http://[0:0::1]/", true),
        ] {
            assert_eq!(bound.contains(&Url::parse(url).unwrap()), expected, "{url}");
        }
        assert!(!origins(&[]).unwrap().contains(&Url::parse("https://a/").unwrap()), "no origin is none");
    }

    #[test]
    fn text_that_is_not_an_origin_is_refused_with_its_index() {
        for text in
            ["", "a", "*", "https://", "https://a/x", "https://a?q", "https://a#f", "https://u@a", "ftp://a", "data:,x"]
        {
            let error = origins(&["https://a", text]).unwrap_err();
            assert_eq!(error.pointer, "/1", "{text}");
        }
        let most = vec!["https://a"; MAX_ORIGINS];
        assert!(origins(&most).is_ok());
        assert_eq!(origins(&[most.as_slice(), &["https://b"]].concat()).unwrap_err().pointer, "");
    }
}
