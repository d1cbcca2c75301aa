//! Entries of the audit log: who changed what, and which requests were refused. Pure.
//!
//! Not: the log itself, which a store keeps. An entry names what has changed and never holds a value: a document's content and a secret have no
//! place in it.

mod verb;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::verb::Verb;
use crate::clock::{Clock, UnixMs};
use crate::job::JobId;

/// Id of an entry: a UUID of version 7, so that ids sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuditId(pub Uuid);

impl AuditId {
    /// Makes a new id, greater than every id that this process made before.
    #[must_use]
    pub fn new(clock: &dyn Clock) -> Self {
        Self(JobId::new(clock).0)
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AuditId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Kind of an [`Actor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// The bearer of a token.
    Token,
    /// A client that showed no valid token, or was asked for none.
    Anonymous,
    /// The configuration, which the server puts in force when it starts.
    Configuration,
    /// The server itself.
    System,
}

impl ActorKind {
    /// Returns the kind's name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Anonymous => "anonymous",
            Self::Configuration => "configuration",
            Self::System => "system",
        }
    }
}

/// Author of a change or of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditActor)]
pub struct Actor {
    /// Kind of the actor.
    pub kind: ActorKind,
    /// Id of the token; null for other kinds.
    pub token: Option<String>,
    /// Name of the token when it was used: a label that proves nothing. Null for other kinds.
    pub name: Option<String>,
    /// Role of the token; null for other kinds.
    pub role: Option<String>,
    /// Whether it is the token of an operator.
    pub operator: bool,
}

impl Actor {
    /// Returns an actor without a token.
    #[must_use]
    pub fn new(kind: ActorKind) -> Self {
        Self { kind, token: None, name: None, role: None, operator: false }
    }

    /// Returns the id of the token, or the name of the kind: what the log is searched by.
    #[must_use]
    pub fn id(&self) -> &str {
        self.token.as_deref().unwrap_or(self.kind.as_str())
    }
}

/// Origin of a change: who makes it, from where and in which request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Author of the change.
    pub actor: Actor,
    /// Address of the client.
    pub address: Option<IpAddr>,
    /// Id of the request, which the response and the log lines of the request also have.
    pub request_id: Option<String>,
}

impl Origin {
    /// Returns the origin of what the server does by itself.
    #[must_use]
    pub fn system() -> Self {
        Self { actor: Actor::new(ActorKind::System), address: None, request_id: None }
    }

    /// Returns the origin of what the configuration declares.
    #[must_use]
    pub fn configuration() -> Self {
        Self { actor: Actor::new(ActorKind::Configuration), address: None, request_id: None }
    }
}

/// Thing that an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditObject {
    /// Kind: `group`, `key`, `plugin`, `policy`, `schedule`, `tenant`, `token`, `bulk`, `job`, `lease`, `mount` or `route`.
    pub kind: String,
    /// Name, or id if it has no name; null if the request names none.
    pub name: Option<String>,
    /// Version after the change; null if it has none.
    pub version: Option<String>,
}

impl AuditObject {
    /// Returns a thing without a version.
    #[must_use]
    pub fn new(kind: &str, name: Option<String>) -> Self {
        Self { kind: kind.to_owned(), name, version: None }
    }
}

/// Result of what an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = AuditOutcome)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The change was made in the transaction that wrote the entry.
    Done,
    /// The request was admitted. The entry was written before it took effect, and does not tell whether it did.
    Requested,
    /// Refused, because the token does not permit it.
    Forbidden,
    /// Refused, because the client showed no valid token.
    Unauthenticated,
}

impl Outcome {
    /// Returns the outcome's name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Requested => "requested",
            Self::Forbidden => "forbidden",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

/// Tenant that an entry belongs to, whose admins see the entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditTenant {
    /// Number of the tenant; 0 for a tenant that the change makes, until the store has numbered it.
    pub id: i64,
    /// Name of the tenant.
    pub name: String,
}

/// Entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Id of the entry.
    pub id: AuditId,
    /// Time of the change.
    pub at: UnixMs,
    /// Name of the node that made the change.
    pub node: String,
    /// Author of the change.
    pub actor: Actor,
    /// Tenant that the entry belongs to; `None` if only operators see it.
    pub tenant: Option<AuditTenant>,
    /// What was done, or was refused.
    pub verb: Verb,
    /// What it was done to.
    pub object: AuditObject,
    /// JSON pointers to the members that changed.
    pub changed: Vec<String>,
    /// Address of the client.
    pub address: Option<IpAddr>,
    /// Id of the request.
    pub request_id: Option<String>,
    /// Result.
    pub outcome: Outcome,
    /// Number of equal requests that the entry stands for.
    pub count: u64,
}

impl AuditEntry {
    /// Returns the number of the tenant that the entry belongs to; 0 if only operators see it.
    #[must_use]
    pub fn tenant_id(&self) -> i64 {
        self.tenant.as_ref().map_or(0, |tenant| tenant.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::assert_stored_form;

    #[test]
    fn stored_form_of_an_entry_stays() {
        assert_stored_form::<AuditEntry>(include_str!("audit/entry.json"));
    }

    #[test]
    fn actor_is_searched_by_token_or_kind() {
        assert_eq!(Origin::system().actor.id(), "system");
        let token = Actor { token: Some("7f".to_owned()), ..Actor::new(ActorKind::Token) };
        assert_eq!(token.id(), "7f");
    }
}
