//! A component that has been compiled, inspected and linked: what it may import, which roles it plays.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};

use super::bindings::{encode_export, judge_export, meta_export, observe_export, retry_export, sign_export};
use super::engine::PolicyEngine;
use super::limits::Limits;
use super::state::CallState;
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

/// The indices of a component's exports, one for each interface that it has.
pub(super) struct Exports {
    pub(super) meta: meta_export::GuestIndices,
    pub(super) encode: Option<encode_export::GuestIndices>,
    pub(super) sign: Option<sign_export::GuestIndices>,
    pub(super) judge: Option<judge_export::GuestIndices>,
    pub(super) retry: Option<retry_export::GuestIndices>,
    pub(super) observe: Option<observe_export::GuestIndices>,
}

/// A component that is ready to be called, by anybody, at any time: nothing of a call stays in it.
pub struct Plugin {
    /// What it is known by.
    pub digest: Digest,
    pub(super) engine: Arc<PolicyEngine>,
    pub(super) pre: InstancePre<CallState>,
    pub(super) exports: Exports,
}

impl Plugin {
    /// Links a compiled component.
    pub(super) fn link(
        engine: Arc<PolicyEngine>,
        digest: Digest,
        component: &Component,
        imports: &Imports,
    ) -> Result<Self, LoadError> {
        let names = Names::of(&engine, component);
        let pre = engine
            .link(component, &imports.wasi)
            .map_err(|error| LoadError::WrongType { name: "imports".to_owned(), detail: format!("{error:#}") })?;
        let exports = Exports {
            meta: find(names.has("meta"), "meta", || meta_export::GuestIndices::new(&pre))?.ok_or(LoadError::NoMeta)?,
            encode: find(names.has("encode"), "encode", || encode_export::GuestIndices::new(&pre))?,
            sign: find(names.has("sign"), "sign", || sign_export::GuestIndices::new(&pre))?,
            judge: find(names.has("judge"), "judge", || judge_export::GuestIndices::new(&pre))?,
            retry: find(names.has("retry"), "retry", || retry_export::GuestIndices::new(&pre))?,
            observe: find(names.has("observe"), "observe", || observe_export::GuestIndices::new(&pre))?,
        };
        let plugin = Self { digest, engine, pre, exports };
        if plugin.roles().is_empty() {
            return Err(LoadError::NoRole);
        }
        plugin.check_types()?;
        Ok(plugin)
    }

    /// Whether it runs in the engine for large policies.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.engine.is_large()
    }

    /// What its calls may use, where those of a plugin that is not large may use this.
    #[must_use]
    pub fn limits<'a>(&self, limits: &'a Limits) -> Cow<'a, Limits> {
        self.engine.limits(limits)
    }

    /// How much room its native code takes, in bytes.
    #[must_use]
    pub fn code_size(&self) -> usize {
        let image = self.pre.component().image_range();
        image.end.addr() - image.start.addr()
    }

    /// Compares the exports with `wit/`. That is done on an instance, so one is made. A component of which none can be made is let
    /// through: each call of it ends in a fault that says why, and the first is made before an upload is accepted.
    fn check_types(&self) -> Result<(), LoadError> {
        let exports = &self.exports;
        let checked = self.engine.trial(|store| {
            let Ok(instance) = self.pre.instantiate(&mut *store) else { return Ok(()) };
            typed("meta", exports.meta.load(&mut *store, &instance))?;
            exports.encode.iter().try_for_each(|it| typed("encode", it.load(&mut *store, &instance)))?;
            exports.sign.iter().try_for_each(|it| typed("sign", it.load(&mut *store, &instance)))?;
            exports.judge.iter().try_for_each(|it| typed("judge", it.load(&mut *store, &instance)))?;
            exports.retry.iter().try_for_each(|it| typed("retry", it.load(&mut *store, &instance)))?;
            exports.observe.iter().try_for_each(|it| typed("observe", it.load(&mut *store, &instance)))
        });
        checked.map_err(|error| LoadError::Compile(format!("{error:#}")))?
    }

    /// The roles that its exports let it play.
    #[must_use]
    pub fn roles(&self) -> Vec<Role> {
        Role::ALL.into_iter().filter(|role| self.plays(*role)).collect()
    }

    /// Whether it can play `role`.
    #[must_use]
    pub fn plays(&self, role: Role) -> bool {
        match role {
            Role::Encode => self.exports.encode.is_some(),
            Role::Sign => self.exports.sign.is_some(),
            Role::Judge => self.exports.judge.is_some(),
            Role::Retry => self.exports.retry.is_some(),
            Role::Observe => self.exports.observe.is_some(),
        }
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

/// The interfaces of `carillon:policy` that a component exports.
struct Names(Vec<String>);

impl Names {
    fn of(engine: &PolicyEngine, component: &Component) -> Self {
        let ty = component.component_type();
        let names = ty.exports(engine.engine()).filter_map(|(name, _)| interface(name)).map(str::to_owned);
        Self(names.collect())
    }

    fn has(&self, interface: &str) -> bool {
        self.0.iter().any(|name| name == interface)
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

fn find<T>(
    exported: bool,
    interface: &str,
    indices: impl FnOnce() -> wasmtime::Result<T>,
) -> Result<Option<T>, LoadError> {
    if !exported {
        return Ok(None);
    }
    indices().map(Some).map_err(|error| wrong_type(interface, &error))
}

fn typed<T>(interface: &str, loaded: wasmtime::Result<T>) -> Result<(), LoadError> {
    loaded.map(drop).map_err(|error| wrong_type(interface, &error))
}

fn wrong_type(interface: &str, error: &wasmtime::Error) -> LoadError {
    LoadError::WrongType { name: format!("{PACKAGE}{interface}{TRACK}0"), detail: format!("{error:#}") }
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
