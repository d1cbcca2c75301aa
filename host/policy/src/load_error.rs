//! Reasons why a component is not accepted.

use std::time::Duration;

use carillon_core::duration;
use carillon_core::text::clean;

/// Reason why a component is not accepted. Each text says what its author can do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The component is larger than allowed.
    #[error("the component has {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Size in bytes.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The bytes are not a component.
    #[error("{0}")]
    NotAComponent(String),
    /// The component does not compile, or not within the compiler's limits.
    #[error("the component does not compile: {0}")]
    Compile(String),
    /// The component has more parts than any compiler makes from one source.
    #[error("the component has too many {what}: at most {most}")]
    TooComplex {
        /// Kind of the parts.
        what: &'static str,
        /// Maximum number.
        most: usize,
    },
    /// The component imports something that a policy does not get.
    #[error("the component imports `{0}`, which policies cannot use: {advice}", advice = advice(.0))]
    Import(String),
    /// The component exports an interface of Carillon with the wrong types.
    #[error("the component's export `{name}` does not have the type that carillon:policy@0.1.0 gives it: {detail}")]
    WrongType {
        /// Name of the export.
        name: String,
        /// Difference from the expected type.
        detail: String,
    },
    /// The component lacks `meta`.
    #[error("the component does not export `carillon:policy/meta@0.1.0`")]
    NoMeta,
    /// The component exports no role.
    #[error("the component exports none of the roles encode, sign, judge, retry, observe")]
    NoRole,
    /// The component links, but its description is not valid.
    #[error("the component's description cannot be used: {0}")]
    Description(String),
    /// The component fails its author's golden tests, or they cannot be run.
    #[error("{0}")]
    Golden(String),
    /// The bytes could not be read, so whether they exist is unknown.
    #[error("the component cannot be read now: {0}; try again later")]
    Source(String),
    /// The component was not examined, because others are being examined.
    #[error("the component cannot be examined now: {0}; try again later")]
    Busy(String),
    /// The compiler has run for the tenant as long as its budget allows.
    #[error(
        "the tenant's uploads have used their {seconds} s of compilation in an hour (quota `compile_seconds`, default \
         `limits.tenant.compile_seconds`); try again in {wait}", wait = duration::format(*.retry_after)
    )]
    OverBudget {
        /// Budget in seconds.
        seconds: u64,
        /// Time until the budget has room again.
        retry_after: Duration,
    },
}

impl LoadError {
    /// Returns the same error with the component's own words in it cleaned.
    pub(super) fn cleaned(self) -> Self {
        let clean = |text: String| clean(&text).into_owned();
        match self {
            Self::NotAComponent(text) => Self::NotAComponent(clean(text)),
            Self::Compile(text) => Self::Compile(clean(text)),
            Self::Import(name) => Self::Import(clean(name)),
            Self::WrongType { name, detail } => Self::WrongType { name: clean(name), detail: clean(detail) },
            Self::Description(text) => Self::Description(clean(text)),
            Self::Golden(text) => Self::Golden(clean(text)),
            other => other,
        }
    }
}

/// Returns a hint about an import that is not allowed.
fn advice(import: &str) -> &'static str {
    if import.starts_with("wasi:sockets/") || import.starts_with("wasi:http/") {
        "a policy has no network access. Build without the network: Python with `componentize-py componentize --stub-wasi`, \
         JavaScript with `disableFeatures: ['http', 'fetch-event']`, Rust for wasm32-unknown-unknown"
    } else if import.starts_with("wasi:") {
        "of WASI 0.2, policies can use cli, clocks, filesystem (empty), io and random. Build for wasm32-wasip2, or without WASI"
    } else {
        "policies are pure functions. Build against carillon:policy@0.1.0 and nothing else; Rust for wasm32-unknown-unknown"
    }
}
