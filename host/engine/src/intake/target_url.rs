//! The URL of a job, checked as a text before it is parsed.
//!
//! The parser follows the rules of browsers (WHATWG), which repair their input: they drop tabs and line breaks, accept one slash or a
//! backslash for two slashes, and trim blanks. A server that repairs a URL calls another one than the client gave, so intake refuses any URL
//! that the parser would repair. The given text is stored and shown; the parsed URL is sent.

use url::Url;

use carillon_core::job::HIDDEN_PASSWORD;

/// Longest URL, in bytes.
const MAX_URL_LEN: usize = 8 << 10;

/// Schemes of URLs to which jobs are delivered.
const DELIVERED: [&str; 2] = ["http", "https"];

/// Schemes that a URL may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UrlSchemes {
    /// The schemes to which jobs are delivered.
    #[default]
    Delivered,
    /// Any scheme: whether it can be delivered to is decided when the job is due.
    Any,
}

/// Checks a URL. Returns a sentence that explains the error.
pub(super) fn check_url(text: &str, schemes: UrlSchemes) -> Result<(), String> {
    if text.len() > MAX_URL_LEN {
        return Err(format!("the URL must have at most {MAX_URL_LEN} bytes"));
    }
    if let Some(bad) = text.chars().find(|letter| letter.is_control() || letter.is_whitespace()) {
        return Err(format!(
            "a URL must have no spaces, line breaks or control characters, but has `{}`: percent-encode it",
            bad.escape_unicode()
        ));
    }
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err("not an absolute URL: it must begin with `http://` or `https://`".to_owned());
    };
    let authority = rest.strip_prefix("//").map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    if authority.is_none_or(str::is_empty) {
        let scheme = scheme.escape_debug();
        return Err(format!("not an absolute URL: `{scheme}:` must be followed by `//` and a host"));
    }
    if rest.split(['?', '#']).next().is_some_and(|before_query| before_query.contains('\\')) {
        return Err("a URL must have no backslash in its host or path: write `/`, or `%5C`".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("not an absolute URL: {error}"))?;
    if url.password() == Some(HIDDEN_PASSWORD) {
        return Err(format!(
            "the password is `{HIDDEN_PASSWORD}`, which the API shows in place of a password: give the password itself"
        ));
    }
    if schemes == UrlSchemes::Delivered && !DELIVERED.contains(&url.scheme()) {
        return Err(format!("`{}` URLs are not supported: use http or https", url.scheme()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_urls_are_taken_in_any_spelling() {
        for url in [
            "http://x",
            "HTTP://EXAMPLE.com:80/x",
            "https://user:secret@host:8443/a/b;c?d=%2F+e&f#g",
            "http://[::1]:80/",
            "http://münchen.example/straße?q=ü",
            "http://x/?a=\\b",
            "http://x?a://b",
            "http://x/%0A",
        ] {
            assert_eq!(check_url(url, UrlSchemes::Delivered), Ok(()), "{url}");
        }
    }

    #[test]
    fn urls_that_a_browser_would_repair_are_refused() {
        for url in [
            "http://x/p\nq",
            "http://x/p\tq",
            "http://x/p\r\nq",
            "ht\ttp://x/",
            " http://x/",
            "http://x/ ",
            "http://x/a b",
            "http://x/\u{a0}",
            "http://x/\u{0}",
            "http:/x",
            "http:x",
            "http:///x",
            "http:////x",
            "http:\\\\x",
            "http:/\\x",
            "http://x\\y",
            "http://x/a\\b",
            "http:",
            "http://",
            "http://?x",
            "//x",
            "x",
            "",
        ] {
            assert!(check_url(url, UrlSchemes::Delivered).is_err(), "{url:?} for delivery");
            assert!(check_url(url, UrlSchemes::Any).is_err(), "{url:?} for any scheme");
        }
    }

    #[test]
    fn other_schemes_are_taken_only_where_any_is() {
        assert_eq!(check_url("ftp://x/", UrlSchemes::Any), Ok(()));
        assert!(check_url("ftp://x/", UrlSchemes::Delivered).unwrap_err().contains("not supported"));
        assert!(check_url("file:///etc/passwd", UrlSchemes::Any).is_err());
        assert!(check_url(&format!("http://x/{}", "a".repeat(9_000)), UrlSchemes::Any).is_err());
    }
}
