//! Schemes of vendors: what is signed, how, and in which headers. Each has the vendor's page, from which it was taken.

use serde::Deserialize;

use crate::config::{Algorithm, Encoding};

/// A vendor's scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// GitHub: <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>.
    Github,
    /// Stripe: <https://docs.stripe.com/webhooks#verify-manually>.
    Stripe,
    /// Slack: <https://docs.slack.dev/authentication/verifying-requests-from-slack>.
    Slack,
    /// Shopify: <https://shopify.dev/docs/apps/build/webhooks/subscribe/https#step-2-validate-the-origin-of-your-webhook>.
    Shopify,
    /// Svix: <https://docs.svix.com/receiving/verifying-payloads/how-manual>.
    Svix,
    /// Twilio: <https://www.twilio.com/docs/usage/security#validating-requests>.
    Twilio,
    /// Square: <https://developer.squareup.com/docs/webhooks/step3validate>.
    Square,
}

/// Members of a config that a preset sets.
pub struct Scheme {
    pub algorithm: Algorithm,
    pub encoding: Encoding,
    /// Template of the text that the signature covers.
    pub content: &'static str,
    /// Names and values of the headers.
    pub headers: &'static [(&'static str, &'static str)],
    /// Template of each signature, where all keys sign.
    pub each: &'static str,
    /// Text between two signatures.
    pub separator: &'static str,
}

impl Scheme {
    /// Values of the members that a scheme does not set; it sets no headers.
    pub const DEFAULT: Self = Self {
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Hex,
        content: "{body}",
        headers: &[],
        each: "{signature}",
        separator: ",",
    };
}

impl Preset {
    pub fn scheme(self) -> Scheme {
        match self {
            Self::Github => Scheme { headers: &[("X-Hub-Signature-256", "sha256={signature}")], ..Scheme::DEFAULT },
            Self::Stripe => Scheme {
                content: "{timestamp}.{body}",
                headers: &[("Stripe-Signature", "t={timestamp},{signatures}")],
                each: "v1={signature}",
                ..Scheme::DEFAULT
            },
            Self::Slack => Scheme {
                content: "v0:{timestamp}:{body}",
                headers: &[("X-Slack-Request-Timestamp", "{timestamp}"), ("X-Slack-Signature", "v0={signature}")],
                ..Scheme::DEFAULT
            },
            Self::Shopify => Scheme {
                encoding: Encoding::Base64,
                headers: &[("X-Shopify-Hmac-Sha256", "{signature}")],
                ..Scheme::DEFAULT
            },
            Self::Svix => Scheme {
                encoding: Encoding::Base64,
                content: "{job_id}.{timestamp}.{body}",
                headers: &[
                    ("svix-id", "{job_id}"),
                    ("svix-timestamp", "{timestamp}"),
                    ("svix-signature", "{signatures}"),
                ],
                each: "v1,{signature}",
                separator: " ",
                ..Scheme::DEFAULT
            },
            Self::Twilio => Scheme {
                algorithm: Algorithm::Sha1,
                encoding: Encoding::Base64,
                content: "{url}{form}",
                headers: &[("X-Twilio-Signature", "{signature}")],
                ..Scheme::DEFAULT
            },
            Self::Square => Scheme {
                encoding: Encoding::Base64,
                content: "{url}{body}",
                headers: &[("x-square-hmacsha256-signature", "{signature}")],
                ..Scheme::DEFAULT
            },
        }
    }
}
