//! Entries for the fuzz targets: readers of a component, and checks of what a policy returns.

use super::wit::{sign_export, types};
use super::{Fault, Limits, LoadError, answer, component, preflight};

/// Largest component, in bytes.
const COMPONENT_LIMIT: usize = 32 << 20;

/// Checks the outline of a component, as before its compilation.
///
/// # Errors
/// Returns the reason why it is not accepted.
pub fn outline(bytes: &[u8]) -> Result<(), LoadError> {
    component::check_bytes(bytes, COMPONENT_LIMIT)?;
    preflight::check(bytes)
}

/// Checks the request that an encoder returned.
///
/// # Errors
/// Returns the fault of an encoder that may not return this.
pub fn check_encoded(limits: &Limits, before: &types::Request, after: types::Request) -> Result<types::Request, Fault> {
    answer::check_encoded(limits, before, after)
}

/// Checks what a signer returned and puts it on the request.
///
/// # Errors
/// Returns the fault of a signer that may not return this.
pub fn check_signed(
    limits: &Limits,
    request: types::Request,
    headers: Vec<types::Header>,
    body: Option<Vec<u8>>,
) -> Result<types::Request, Fault> {
    answer::apply_signed(limits, request, sign_export::Signed { headers, body })
}
