//! The settings of `werkzeug-cookie`, and what makes them contradict one another.

use carillon_policy_sdk::Millis;
use serde::Deserialize;

/// What to write.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `base64(mac)?key=base64(json)&…`
    #[default]
    SecureCookie,
    /// `payload.time.signature`
    FlaskSession,
}

/// How the values of a secure cookie are written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum JsonStyle {
    /// As `json.dumps(value)` does, and Doppler with it.
    Python,
    /// As the package `secure-cookie` does: no blanks, members sorted.
    Compact,
}

/// A header to put the text into.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct HeaderPlacement {
    /// The header's name.
    pub header: String,
    /// What comes before the text, such as `session=`.
    #[serde(default)]
    pub prefix: String,
}

/// Where the text goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// It replaces the body.
    #[default]
    Body,
    /// It goes into a header, and the body stays.
    Header(HeaderPlacement),
}

impl<'de> Deserialize<'de> for Placement {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) if text == "body" => Ok(Self::Body),
            object @ serde_json::Value::Object(_) => {
                serde_json::from_value(object).map(Self::Header).map_err(D::Error::custom)
            }
            other => Err(D::Error::custom(format_args!(
                "`placement` is {other}, but must be \"body\" or an object with `header`"
            ))),
        }
    }
}

/// See the README for the meaning and the defaults.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What to write.
    pub format: Format,
    /// Where it goes.
    pub placement: Placement,
    /// Secure cookies only: how long the text is good for.
    pub expires: Option<Millis>,
    /// Secure cookies only: how values are written.
    pub json_style: Option<JsonStyle>,
    /// Secure cookies only: whether `~` in a key is written as `%7E`, as Werkzeug did before 0.15.
    pub quote_tilde: Option<bool>,
    /// Flask sessions only: what the signing key is derived with.
    pub salt: Option<String>,
}

impl Config {
    pub(crate) fn json_style(&self) -> JsonStyle {
        self.json_style.unwrap_or(JsonStyle::Python)
    }

    pub(crate) fn salt(&self) -> &str {
        self.salt.as_deref().unwrap_or("cookie-session")
    }

    /// One sentence for the first rule that the settings break.
    pub(crate) fn check(&self) -> Result<(), String> {
        let misplaced = match self.format {
            Format::FlaskSession if self.expires.is_some() => Some("expires"),
            Format::FlaskSession if self.json_style.is_some() => Some("json_style"),
            Format::FlaskSession if self.quote_tilde.is_some() => Some("quote_tilde"),
            Format::SecureCookie if self.salt.is_some() => Some("salt"),
            _ => None,
        };
        match (misplaced, &self.placement) {
            (Some("expires"), _) => Err("`expires` belongs to the format \"secure-cookie\"; the age of a Flask session is judged by its reader.".to_owned()),
            (Some(field), _) => Err(format!("`{field}` does not belong to this `format`; leave it out, or change `format`.")),
            (None, Placement::Header(place)) => place.check(),
            (None, Placement::Body) => Ok(()),
        }
    }
}

impl HeaderPlacement {
    fn check(&self) -> Result<(), String> {
        // A token (RFC 9110, section 5.6.2).
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if self.header.is_empty() || !self.header.bytes().all(token) {
            return Err(format!("`{}` is not the name of a header.", self.header));
        }
        if !self.prefix.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err("`prefix` must be printable ASCII text.".to_owned());
        }
        Ok(())
    }
}
