//! Facts about a component that follow from its bytes and names: its digest, its roles, and its permitted imports.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::load_error::LoadError;
use super::wasi;

/// Interfaces that a component may import; `types` and `judge` only for their types.
const ALLOWED_IMPORTS: [&str; 5] = ["types", "log", "keys", "jobs", "judge"];

/// Package of the policy interface, and the beginning of the versions in its compatibility track.
const PACKAGE: &str = "carillon:policy/";
const TRACK: &str = "@0.1.";

/// Role of a plugin in a group's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Turns a job's request into the one that the receiver expects.
    Encode,
    /// Proves where the request comes from.
    Sign,
    /// Decides what a response means.
    Judge,
    /// Decides whether and when a job is tried again.
    Retry,
    /// Sees the events of a group, and decides nothing.
    Observe,
}

impl Role {
    /// All roles, in the order of an attempt.
    pub const ALL: [Self; 5] = [Self::Encode, Self::Sign, Self::Judge, Self::Retry, Self::Observe];

    /// Roles that at most one plugin plays.
    pub const SINGLE: [Self; 4] = [Self::Sign, Self::Judge, Self::Retry, Self::Observe];

    /// Single roles whose config a job can override. An observer is not among them: it sees all jobs of a group under one config.
    pub const OVERRIDABLE: [Self; 3] = [Self::Sign, Self::Judge, Self::Retry];

    /// Returns whether one of these roles has this name.
    #[must_use]
    pub fn is_named(roles: &[Self], name: &str) -> bool {
        roles.iter().any(|role| role.as_str() == name)
    }

    /// Returns the role's name in the API, which is also its interface's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Encode => "encode",
            Self::Sign => "sign",
            Self::Judge => "judge",
            Self::Retry => "retry",
            Self::Observe => "observe",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 of a component's bytes, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Digest(pub Arc<str>);

impl Digest {
    /// Returns the digest of `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Rejects bytes that are certainly not a component, before anything is compiled.
pub(super) fn check_bytes(bytes: &[u8], limit: usize) -> Result<(), LoadError> {
    if bytes.len() > limit {
        return Err(LoadError::TooLarge { size: bytes.len(), limit });
    }
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 0x0d, 0, 1, 0]) => Ok(()),
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => Err(LoadError::NotAComponent(
            "this is a core module, not a component: wrap it with `carillon plugin build` or `wasm-tools component new`"
                .to_owned(),
        )),
        Some([0x7f, b'E', b'L', b'F', ..]) => {
            Err(LoadError::NotAComponent("this is a pre-compiled artefact; upload the component itself".to_owned()))
        }
        _ => Err(LoadError::NotAComponent("these bytes are not a WebAssembly component".to_owned())),
    }
}

/// Returns whether a policy may import this name.
pub(super) fn is_allowed_import(name: &str) -> bool {
    wasi::interface(name).is_some() || interface(name).is_some_and(|interface| ALLOWED_IMPORTS.contains(&interface))
}

/// Returns the interface's own name, if it is an interface of Carillon in the version that this host supports.
pub(super) fn interface(name: &str) -> Option<&str> {
    let (interface, patch) = name.strip_prefix(PACKAGE)?.split_once(TRACK)?;
    (!patch.is_empty()).then_some(interface)
}

/// Returns the name under which a component exports an interface of Carillon.
pub(super) fn export_name(interface: &str) -> String {
    format!("{PACKAGE}{interface}{TRACK}0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_track_of_the_interface_counts() {
        assert_eq!(interface("carillon:policy/judge@0.1.0"), Some("judge"));
        assert_eq!(interface("carillon:policy/judge@0.1.7"), Some("judge"));
        assert_eq!(interface("carillon:policy/judge@0.2.0"), None);
        assert_eq!(interface("wasi:cli/environment@0.2.0"), None);
    }

    #[test]
    fn bytes_that_are_no_component_are_named() {
        let text = |bytes: &[u8]| check_bytes(bytes, 64).unwrap_err().to_string();
        assert!(text(b"\0asm\x01\0\0\0").contains("core module"));
        assert!(text(b"\x7fELF\x02\x01\x01\0").contains("pre-compiled"));
        assert!(text(b"hello").contains("not a WebAssembly component"));
        assert!(text(&[0; 65]).contains("65 bytes"));
    }
}
