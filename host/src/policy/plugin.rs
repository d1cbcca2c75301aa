//! A component that has been compiled, inspected and linked: what it may import, which roles it plays.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::copies::Copies;
use super::engine::PolicyEngine;
use super::limits::Limits;
use super::linked::Linked;
use super::wasi;

/// The interfaces that a component may import; `types` and `judge` only for their types.
const ALLOWED_IMPORTS: [&str; 5] = ["types", "log", "keys", "jobs", "judge"];

/// The version of the policy interface, and the names that belong to its compatibility track.
const PACKAGE: &str = "carillon:policy/";
const TRACK: &str = "@0.1.";

/// What a plugin can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Turn a request into the one that the receiver expects.
    Encode,
    /// Prove where the request comes from.
    Sign,
    /// Decide what an answer means.
    Judge,
    /// Decide whether and when to try again.
    Retry,
    /// Watch.
    Observe,
}

impl Role {
    /// Every role, in the order of an attempt.
    pub const ALL: [Self; 5] = [Self::Encode, Self::Sign, Self::Judge, Self::Retry, Self::Observe];

    /// The role's name in the API, which is also its interface's name.
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

/// What identifies a component: the sha-256 of its bytes, in hex.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String)]
pub struct Digest(pub Arc<str>);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(bytes)).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a component is not accepted. Each text says what its author can do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// Larger than allowed.
    #[error("the component has {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Bytes.
        size: usize,
        /// Bytes.
        limit: usize,
    },
    /// Not a component at all.
    #[error("{0}")]
    NotAComponent(String),
    /// It would not compile, or not within its limits.
    #[error("the component does not compile: {0}")]
    Compile(String),
    /// It has more parts than anything that a compiler makes of one source.
    #[error("the component has too many {what}: at most {most}")]
    TooComplex {
        /// Parts of which kind.
        what: &'static str,
        /// The bound.
        most: usize,
    },
    /// It imports something that a policy does not get.
    #[error("the component imports `{0}`, which policies do not get: {advice}", advice = advice(.0))]
    Import(String),
    /// It exports an interface of ours with the wrong types.
    #[error("the component's export `{name}` does not have the type that carillon:policy@0.1.0 gives it: {detail}")]
    WrongType {
        /// The export.
        name: String,
        /// What is wrong.
        detail: String,
    },
    /// It lacks `meta`.
    #[error("the component does not export `carillon:policy/meta@0.1.0`")]
    NoMeta,
    /// It has nothing to offer.
    #[error("the component exports none of the roles encode, sign, judge, retry, observe")]
    NoRole,
    /// It links, but does not describe itself properly.
    #[error("the component's description cannot be used: {0}")]
    Description(String),
    /// It does not do what its author's golden tests say, or they cannot be run.
    #[error("{0}")]
    Golden(String),
    /// Nothing is known of it, because others are looked at.
    #[error("the component cannot be looked at now: {0}; try again later")]
    Busy(String),
}

/// A component that is ready to be called, by anybody, at any time: nothing of a call stays in it.
pub struct Plugin {
    /// What it is known by.
    pub digest: Digest,
    original: Linked,
    copies: Copies,
}

impl Plugin {
    /// Of a component that is linked in the first of the engines whose copies these are.
    pub(super) fn new(digest: Digest, original: Linked, copies: Copies) -> Result<Self, LoadError> {
        if !Role::ALL.into_iter().any(|role| original.exports.has(role)) {
            return Err(LoadError::NoRole);
        }
        original.check_types()?;
        Ok(Self { digest, original, copies })
    }

    /// It in the engine of this thread, or the original.
    pub(super) fn here(&self) -> &Linked {
        self.copies.here(&self.original).unwrap_or(&self.original)
    }

    /// Whether it runs in the engine for large policies.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.original.engine.is_large()
    }

    /// What its calls may use, where those of a plugin that is not large may use this.
    #[must_use]
    pub fn limits<'a>(&self, limits: &'a Limits) -> Cow<'a, Limits> {
        self.original.engine.limits(limits)
    }

    /// How much room its native code takes in one engine, in bytes.
    #[must_use]
    pub fn code_size(&self) -> usize {
        self.original.code_size()
    }

    /// The roles that its exports let it play.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.plays(*role)).collect()
    }

    /// Whether it can play `role`.
    #[must_use]
    pub fn plays(&self, role: Role) -> bool {
        self.original.exports.has(role)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("digest", &self.digest).field("roles", &self.roles()).finish_non_exhaustive()
    }
}

/// Refuses what is certainly not a component, before anything is compiled.
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

/// What to do about an import.
fn advice(import: &str) -> &'static str {
    if import.starts_with("wasi:sockets/") || import.starts_with("wasi:http/") {
        "nothing leaves a policy but its answer. Build without the network: Python with `componentize-py componentize --stub-wasi`, \
         JavaScript with `disableFeatures: ['http', 'fetch-event']`, Rust for wasm32-unknown-unknown"
    } else if import.starts_with("wasi:") {
        "of WASI 0.2 there are cli, clocks, filesystem (empty), io and random. Build for wasm32-wasip2, or without WASI"
    } else {
        "they are pure functions. Build against carillon:policy@0.1.0 and nothing else; Rust for wasm32-unknown-unknown"
    }
}

/// What a component imports, all of which a policy gets.
pub(super) struct Imports {
    /// The interfaces of WASI, as they are asked for.
    pub(super) wasi: Vec<String>,
}

impl Imports {
    pub(super) fn of(engine: &PolicyEngine, component: &Component) -> Result<Self, LoadError> {
        let mut wasi = Vec::new();
        for (name, item) in component.component_type().imports(engine.engine()) {
            if !(matches!(item.ty, ComponentItem::ComponentInstance(_)) && is_allowed_import(name)) {
                return Err(LoadError::Import(name.to_owned()));
            }
            if wasi::interface(name).is_some() {
                wasi.push(name.to_owned());
            }
        }
        Ok(Self { wasi })
    }
}

/// Whether a policy gets what it imports under this name.
pub(super) fn is_allowed_import(name: &str) -> bool {
    wasi::interface(name).is_some() || interface(name).is_some_and(|interface| ALLOWED_IMPORTS.contains(&interface))
}

/// The interface's own name, if it is one of ours in the version that this host speaks.
pub(super) fn interface(name: &str) -> Option<&str> {
    let (interface, patch) = name.strip_prefix(PACKAGE)?.split_once(TRACK)?;
    (!patch.is_empty()).then_some(interface)
}

/// The name under which a component exports one of our interfaces.
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
