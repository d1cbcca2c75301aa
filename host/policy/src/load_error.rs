//! Why a component is not accepted.

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
    /// Its bytes could not be read: whether they are there is not known.
    #[error("the component cannot be read now: {0}; try again later")]
    Source(String),
    /// Nothing is known of it, because others are looked at.
    #[error("the component cannot be looked at now: {0}; try again later")]
    Busy(String),
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
