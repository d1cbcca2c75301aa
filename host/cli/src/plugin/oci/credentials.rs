//! Credentials of a registry.

/// Credentials of a registry. They have no `Debug`, so that no message contains them.
#[derive(Clone)]
pub(super) enum Credentials {
    /// Name with a password.
    Password { username: String, password: String },
    /// Token that the registry's token server exchanges for others.
    IdentityToken(String),
}
