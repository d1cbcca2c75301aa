//! Length of a call's arguments, which determines its additional fuel and time. The same arguments have the same length on every node.

use super::wit::{judge_export, observe_export, retry_export, types};

/// Bytes that a value counts for that is not a text.
const PLAIN: usize = 8;

/// Returns the length of an attempt.
pub(super) fn attempt(it: &types::Attempt) -> usize {
    PLAIN + it.job_id.len() + it.group.len() + attributes(&it.attributes)
}

/// Returns the length of a request.
pub(super) fn request(it: &types::Request) -> usize {
    it.method.len() + it.url.len() + headers(&it.headers) + it.body.len()
}

/// Returns the length of an exchange.
pub(super) fn exchange(it: &judge_export::Exchange) -> usize {
    match it {
        judge_export::Exchange::Response(response) => headers(&response.headers) + response.body.len(),
        judge_export::Exchange::TransportError(error) => error.code.len() + error.message.len(),
    }
}

/// Returns the length of the earlier attempts.
pub(super) fn history(it: &[retry_export::Past]) -> usize {
    it.len() * PLAIN
}

/// Returns the length of events.
pub(super) fn events(it: &[observe_export::Event]) -> usize {
    let one = |event: &observe_export::Event| {
        PLAIN + event.kind.len() + event.group.len() + event.job_id.len() + attributes(&event.attributes)
    };
    it.iter().map(one).sum()
}

fn headers(it: &[types::Header]) -> usize {
    it.iter().map(|header| header.name.len() + header.value.len()).sum()
}

fn attributes(it: &[types::Attribute]) -> usize {
    it.iter().map(|attribute| attribute.key.len() + attribute.value.len()).sum()
}
