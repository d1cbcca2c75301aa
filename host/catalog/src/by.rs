//! Who made a change: its form in memory and in the store.

use serde::{Deserialize, Serialize};

/// Who made a change, as the change's history shows it.
///
/// Stored as a name alone if there is no token, which is also the form of older versions of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredBy", into = "StoredBy")]
pub struct By {
    /// Id of the token; `None` for a part of the server, and for what older versions stored.
    pub token: Option<String>,
    /// Name of the token when it was used, or of the part of the server: a label that proves nothing.
    pub name: String,
}

/// Stored form of [`By`].
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredBy {
    Name(String),
    Token { token: String, name: String },
}

impl From<StoredBy> for By {
    fn from(stored: StoredBy) -> Self {
        match stored {
            StoredBy::Name(name) => Self { token: None, name },
            StoredBy::Token { token, name } => Self { token: Some(token), name },
        }
    }
}

impl From<By> for StoredBy {
    fn from(By { token, name }: By) -> Self {
        match token {
            Some(token) => Self::Token { token, name },
            None => Self::Name(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::test_util::assert_stored_form;

    #[test]
    fn names_of_older_versions_and_tokens_keep_their_form() {
        assert_stored_form::<By>(r#""the configuration""#);
        assert_stored_form::<By>(r#"{"token": "7f00", "name": "ci"}"#);
        let by: By = serde_json::from_str(r#""ops""#).unwrap();
        assert_eq!(by, By { token: None, name: "ops".to_owned() });
    }
}
