//! Why there is no answer, and the resolver whose refusals are found again in the client's errors.

use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::egress::{Guard, Refused};

/// Why there is no answer.
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self { code: "refused-address", message: refused.to_string() }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let mut causes = Vec::new();
        let mut cause = error.source();
        let mut code = if error.is_timeout() {
            "timeout"
        } else if error.is_connect() {
            "connect"
        } else if error.is_body() || error.is_decode() {
            "body"
        } else {
            "reset"
        };
        while let Some(error) = cause {
            if let Some(refused) = error.downcast_ref::<Refused>() {
                return refused.clone().into();
            }
            if error.is::<rustls::Error>() || error.downcast_ref::<std::io::Error>().is_some_and(is_tls) {
                code = "tls";
            } else if error.is::<DnsError>() {
                code = "dns";
            }
            causes.push(error.to_string());
            cause = error.source();
        }
        let message = causes.pop().unwrap_or_else(|| error.without_url().to_string());
        Self { code, message }
    }
}

/// TLS errors arrive inside an I/O error, or inside an I/O error inside an I/O error.
fn is_tls(error: &std::io::Error) -> bool {
    let nested = |inner: &(dyn std::error::Error + Send + Sync + 'static)| {
        inner.is::<rustls::Error>() || inner.downcast_ref::<std::io::Error>().is_some_and(is_tls)
    };
    error.get_ref().is_some_and(nested)
}

/// Resolves names and drops the addresses that the guard refuses.
pub(super) struct GuardedResolver(pub(super) Arc<Guard>);

#[derive(Debug, thiserror::Error)]
#[error("the name `{name}` does not resolve: {reason}")]
struct DnsError {
    name: String,
    reason: String,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.0);
        Box::pin(async move {
            let name = name.as_str().to_owned();
            let failed = |reason: String| DnsError { name: name.clone(), reason };
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|error| failed(error.to_string()))?;
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in found {
                match guard.check(address.ip()) {
                    Ok(()) => allowed.push(SocketAddr::new(address.ip(), 0)),
                    Err(error) => refused = Some(error),
                }
            }
            match (allowed.is_empty(), refused) {
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
                (true, Some(refused)) => Err(refused.into()),
                (true, None) => Err(failed("it has no addresses".to_owned()).into()),
            }
        })
    }
}
