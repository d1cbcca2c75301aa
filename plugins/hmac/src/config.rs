//! Config: a preset, or what it consists of.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use carillon_policy_sdk::Mac;
use serde::Deserialize;

use crate::preset::{Preset, Scheme};
use crate::template::{Placeholder, Template};

/// See the README for the meaning and the defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Vendor's scheme, which sets the members that are not given.
    preset: Option<Preset>,
    algorithm: Option<Algorithm>,
    encoding: Option<Encoding>,
    /// Text that the signature covers.
    content: Option<Template>,
    /// Headers that are set, by name.
    headers: Option<BTreeMap<String, Template>>,
    /// Form of each signature in `{signatures}`.
    each: Option<Template>,
    /// Text between two signatures.
    separator: Option<String>,
}

/// Hash function of the HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

impl Algorithm {
    pub fn mac(self) -> Mac {
        match self {
            Self::Sha1 => Mac::HmacSha1,
            Self::Sha256 => Mac::HmacSha256,
            Self::Sha512 => Mac::HmacSha512,
        }
    }
}

/// Form of a signature as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    Hex,
    Base64,
    /// The alphabet for URLs, without padding (RFC 4648, section 5).
    Base64url,
}

impl Encoding {
    pub fn encode(self, signature: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(signature),
            Self::Base64 => STANDARD.encode(signature),
            Self::Base64url => URL_SAFE_NO_PAD.encode(signature),
        }
    }
}

/// A complete config.
pub struct Rules {
    pub algorithm: Algorithm,
    pub encoding: Encoding,
    pub content: Template,
    pub headers: Vec<(String, Template)>,
    pub each: Template,
    pub separator: String,
}

impl Config {
    /// Returns the config with what its preset, or the defaults, set.
    ///
    /// # Errors
    /// Returns one sentence about what contradicts itself, or is missing.
    pub fn rules(&self) -> Result<Rules, String> {
        if self.preset.is_none() && self.headers.is_none() {
            return Err("`headers` or `preset` is required".to_owned());
        }
        let scheme = self.preset.map_or(Scheme::DEFAULT, Preset::scheme);
        let template = |own: &Option<Template>, text| own.clone().map_or_else(|| Template::parse(text), Ok);
        let headers = match &self.headers {
            Some(headers) => headers.clone().into_iter().collect(),
            None => scheme
                .headers
                .iter()
                .map(|(name, value)| Ok(((*name).to_owned(), Template::parse(value)?)))
                .collect::<Result<_, String>>()?,
        };
        let rules = Rules {
            algorithm: self.algorithm.unwrap_or(scheme.algorithm),
            encoding: self.encoding.unwrap_or(scheme.encoding),
            content: template(&self.content, scheme.content)?,
            headers,
            each: template(&self.each, scheme.each)?,
            separator: self.separator.clone().unwrap_or_else(|| scheme.separator.to_owned()),
        };
        rules.check()?;
        Ok(rules)
    }
}

impl Rules {
    fn check(&self) -> Result<(), String> {
        if let Some((name, _)) = self.headers.iter().find(|(name, _)| !is_header_name(name)) {
            return Err(format!("`{name}` is not the name of a header"));
        }
        if self.content.placeholders().any(Placeholder::is_signature) {
            return Err("`content` is what is signed: it cannot have `{signature}` or `{signatures}`".to_owned());
        }
        if self.each.placeholders().any(|placeholder| *placeholder == Placeholder::Signatures) {
            return Err("`each` is the form of one signature: it cannot have `{signatures}`".to_owned());
        }
        let mut values = self.headers.iter().flat_map(|(_, value)| value.placeholders());
        if !values.any(Placeholder::is_signature) {
            return Err(
                "no header has `{signature}` or `{signatures}`: the receiver could not verify anything".to_owned()
            );
        }
        if self.signs_body() {
            return Ok(());
        }
        Err("`content` must have `{body}` or `{form}`: else anybody could send another body under the signature"
            .to_owned())
    }

    fn signs_body(&self) -> bool {
        self.content.placeholders().any(|placeholder| matches!(placeholder, Placeholder::Body | Placeholder::Form))
    }
}

/// Returns whether a text is a token (RFC 9110, section 5.6.2).
fn is_header_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
