//! Name of an artefact: `oci://HOST[:PORT]/REPOSITORY[:TAG|@sha256:…]`.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

const SCHEME: &str = "oci://";

/// Default tag.
const LATEST: &str = "latest";

/// Maximum length of a tag.
const TAG_LEN: usize = 128;

/// Number of digits of a SHA-256 in hexadecimal form.
const DIGEST_LEN: usize = 64;

/// Reference to an artefact in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host, with its port if one was given.
    pub(super) host: String,
    /// Path of the repository.
    pub(super) repository: String,
    at: Option<At>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Tag(String),
    Digest(String),
}

impl Reference {
    /// Returns whether `text` has the form of such a reference.
    pub(in super::super) fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Returns the tag, if one was given.
    pub(super) fn tag(&self) -> Option<&str> {
        match &self.at {
            Some(At::Tag(tag)) => Some(tag),
            _ => None,
        }
    }

    /// Returns the tag or digest to request from the registry.
    pub(super) fn pointer(&self) -> &str {
        match &self.at {
            Some(At::Tag(text) | At::Digest(text)) => text,
            None => LATEST,
        }
    }
}

/// Returns whether this is a SHA-256 in the form of registries.
pub(super) fn is_digest(text: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == DIGEST_LEN && hex.bytes().all(is_digit))
}

fn is_tag(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.len() <= TAG_LEN && text.bytes().all(fits) && !text.is_empty() && !text.starts_with(['.', '-'])
}

/// Returns whether this is a path of words of `a-z`, `0-9`, `.`, `_` and `-` that begin and end with a letter or a digit.
fn is_repository(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_word = |word: &str| {
        word.bytes().all(fits)
            && !word.is_empty()
            && !word.starts_with(['.', '_', '-'])
            && !word.ends_with(['.', '_', '-'])
    };
    text.split('/').all(is_word)
}

fn is_host(text: &str) -> bool {
    let Ok(url) = Url::parse(&format!("https://{text}/")) else { return false };
    let is_plain = url.username().is_empty() && url.password().is_none() && url.path() == "/";
    is_plain && !text.contains(['/', '?', '#', '@']) && url.host_str().is_some()
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || format!("`{text}` is not oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:DIGEST");
        let (host, path) = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(form)?;
        let (repository, at) = match (path.split_once('@'), path.split_once(':')) {
            (Some((repository, digest)), _) => (repository, Some(At::Digest(digest.to_owned()))),
            (None, Some((repository, tag))) => (repository, Some(At::Tag(tag.to_owned()))),
            (None, None) => (path, None),
        };
        let is_known = match &at {
            Some(At::Tag(tag)) => is_tag(tag),
            Some(At::Digest(digest)) => is_digest(digest),
            None => true,
        };
        if !(is_known && is_repository(repository) && is_host(host)) {
            return Err(form());
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), at })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.host, self.repository)?;
        match &self.at {
            Some(At::Tag(tag)) => write!(f, ":{tag}"),
            Some(At::Digest(digest)) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, host, repository, pointer) in [
            ("oci://ghcr.io/acme/judge:1.0.0", "ghcr.io", "acme/judge", "1.0.0"),
            ("oci://127.0.0.1:5000/judge", "127.0.0.1:5000", "judge", "latest"),
            (&format!("oci://[::1]:5000/a/b-c/d_e@{digest}"), "[::1]:5000", "a/b-c/d_e", &digest),
        ] {
            let read: Reference = text.parse().unwrap();
            assert_eq!((&*read.host, &*read.repository, read.pointer()), (host, repository, pointer));
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "ghcr.io/a:1",
            "oci://ghcr.io",
            "oci://ghcr.io/",
            "oci:///a:1",
            "oci://h/A:1",
            "oci://h/../a:1",
            "oci://h/a//b:1",
            "oci://h/a:",
            "oci://h/a:-x",
            "oci://h/a@sha256:ab",
            "oci://h/a@md5:ab",
            "oci://u@h/a:1",
            "oci://u:p@h/a:1",
            "oci://h:x/a:1",
            "oci://h/a:1?x",
            "oci://h?x/a:1",
            "oci://h/a:b/c",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }
}
