//! Labels of the requests that are counted, from closed sets.

use prometheus_client::encoding::EncodeLabelSet;

/// Labels of a request to the API.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

/// Methods with a label of their own: clients can send any other word.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];

impl RequestLabels {
    /// Creates the labels of a request: its method, its route's pattern, and the status of its response. A method that HTTP does not define
    /// is `other`.
    #[must_use]
    pub fn new(method: &str, route: &str, status: u16) -> Self {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or("other");
        Self { method, route: route.to_owned(), status }
    }
}
