//! `hmac`: signs requests with an HMAC (RFC 2104) in the form that receivers of a vendor's webhooks expect, or in any other form that
//! templates can say.
//!
//! Invariants: what is signed has the body; every key of the binding can sign, newest first; a config that cannot lead to a signature is
//! refused when it is bound.
//!
//! It fails with the config to blame if no key is bound, if one is not a secret, or if more keys sign than a call may use; with the job to
//! blame if a form is to be signed and the body is none, or if a value cannot stand in a header.

mod config;
mod form;
mod preset;
mod template;
#[cfg(test)]
mod tests;

use carillon_policy_sdk::{Attempt, Failure, Header, Key, KeyError, Plugin, Request, Sign, Signed, export};

pub use self::config::Config;
use self::config::Rules;
use self::template::{Placeholder, Template};

/// The plugin.
#[derive(Debug)]
pub struct Hmac;

export!(Hmac: sign);

impl Plugin for Hmac {
    type Config = Config;

    const NAME: &'static str = "hmac";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Signs requests with an HMAC as GitHub, Stripe, Slack, Shopify, Svix, Twilio, Square and others do, or as templates say.";
    const CONFIG_SCHEMA: &'static str = include_str!("../config.schema.json");

    fn check(config: &Config) -> Result<(), String> {
        config.rules().map(drop)
    }
}

impl Sign for Hmac {
    fn sign(attempt: &Attempt, config: &Config, request: Request, keys: &[&dyn Key]) -> Result<Signed, Failure> {
        if keys.is_empty() {
            return Err(Failure::config("no-key", "The binding names no key to sign with; add `keys` to it."));
        }
        let rules = config.rules().map_err(|error| Failure::config("config", error))?;
        let facts = Facts { attempt, form: form(&rules, &request)?, request };
        let content = facts.render(&rules.content, None);
        // All keys sign only where the receiver is sent more than one signature.
        let is_for_all =
            rules.headers.iter().any(|(_, value)| value.placeholders().any(|it| *it == Placeholder::Signatures));
        let keys = if is_for_all { keys } else { &keys[..1] };
        let signatures = keys.iter().map(|key| Ok(rules.encoding.encode(&key.mac(rules.algorithm.mac(), &content)?)));
        let signatures = Signatures::new(signatures.collect::<Result<_, _>>().map_err(refused)?, &rules, &facts);
        let header = |(name, value): &(String, Template)| {
            let value = facts.render(value, Some(&signatures));
            if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
                let message = format!("The value of the header `{name}` would have a control character.");
                return Err(Failure::job("header-value", message));
            }
            Ok(Header { name: name.clone(), value })
        };
        let headers = rules.headers.iter().map(header).collect::<Result<_, _>>()?;
        Ok(Signed { headers, body: None })
    }
}

fn refused(error: KeyError) -> Failure {
    match error {
        KeyError::TooManyOperations => {
            Failure::config("too-many-keys", "The binding's keys make more signatures than one call may make.")
        }
        KeyError::WrongKind => error.into(),
    }
}

/// Returns the fields of the form that is to be signed, if one is.
fn form(rules: &Rules, request: &Request) -> Result<Vec<u8>, Failure> {
    if !rules.content.placeholders().any(|placeholder| *placeholder == Placeholder::Form) {
        return Ok(Vec::new());
    }
    let content_type = header(request, "content-type");
    let is_form = content_type.to_ascii_lowercase().starts_with(form::CONTENT_TYPE.as_bytes());
    if !is_form && !request.body.is_empty() {
        let message = format!("`{{form}}` is signed, and the body is not of the type `{}`.", form::CONTENT_TYPE);
        return Err(Failure::job("no-form", message));
    }
    Ok(form::sorted_fields(&request.body))
}

/// Returns the value of a header; empty without one.
fn header<'r>(request: &'r Request, name: &str) -> &'r [u8] {
    let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    found.map_or(&[], |header| header.value.as_slice())
}

/// Values of the placeholders.
struct Facts<'a> {
    attempt: &'a Attempt,
    request: Request,
    form: Vec<u8>,
}

/// Signatures as text.
struct Signatures {
    newest: String,
    all: Vec<u8>,
}

impl Signatures {
    fn new(signatures: Vec<String>, rules: &Rules, facts: &Facts<'_>) -> Self {
        let each = signatures
            .iter()
            .map(|signature| facts.render(&rules.each, Some(&Self { newest: signature.clone(), all: Vec::new() })));
        let all = each.collect::<Vec<_>>().join(rules.separator.as_bytes());
        Self { newest: signatures.into_iter().next().unwrap_or_default(), all }
    }
}

impl Facts<'_> {
    fn render(&self, template: &Template, signatures: Option<&Signatures>) -> Vec<u8> {
        template.render(|placeholder, rendered| {
            let text = match placeholder {
                Placeholder::Body => return rendered.extend_from_slice(&self.request.body),
                Placeholder::Form => return rendered.extend_from_slice(&self.form),
                Placeholder::Header(name) => return rendered.extend_from_slice(header(&self.request, name)),
                Placeholder::Timestamp => (self.attempt.now_ms / 1_000).to_string(),
                Placeholder::TimestampMs => self.attempt.now_ms.to_string(),
                Placeholder::JobId => self.attempt.job_id.clone(),
                Placeholder::Attempt => self.attempt.number.to_string(),
                Placeholder::Method => self.request.method.clone(),
                Placeholder::Url => self.request.url.clone(),
                Placeholder::Path => path(&self.request.url).to_owned(),
                Placeholder::Signature => signatures.map(|them| them.newest.clone()).unwrap_or_default(),
                Placeholder::Signatures => {
                    return rendered.extend_from_slice(signatures.map_or(&[], |them| them.all.as_slice()));
                }
            };
            rendered.extend_from_slice(text.as_bytes());
        })
    }
}

/// Returns the path of an absolute URL, with the query.
fn path(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let path = url[after_scheme..].find(['/', '?', '#']).map_or("", |at| &url[after_scheme + at..]);
    let path = path.split('#').next().unwrap_or_default();
    if path.is_empty() { "/" } else { path }
}
