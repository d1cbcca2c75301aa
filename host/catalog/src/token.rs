//! API token: its forms in memory and in the store, and what it is good for.
//!
//! Invariant: the text of a token is nowhere, only its hash. A token that was made while no token was required is good for nothing.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::entities::{AccessRole, Tenant};
use super::secrets::token_hash;
use carillon_core::clock::UnixMs;

/// Token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Note on the token's user.
    pub name: String,
    /// Role, which bounds the access.
    pub role: AccessRole,
    /// Whether the token also manages tenants.
    pub operator: bool,
    /// Expiry, if the token has one.
    pub expires_at: Option<UnixMs>,
    /// Names of the groups that the token sees; `None` for all.
    pub groups: Option<Vec<String>>,
    /// Networks from which the token is accepted; `None` for all.
    pub addresses: Option<Vec<IpNet>>,
    /// Token whose bearer makes this one; `None` if the server does.
    pub created_by: Option<TokenAuthor>,
    /// Whether it is made while no token is required: then it is good for nothing.
    pub unauthenticated: bool,
}

impl NewToken {
    /// Returns a token that is bounded by its role alone.
    #[must_use]
    pub fn new(name: &str, role: AccessRole) -> Self {
        Self {
            name: name.to_owned(),
            role,
            operator: false,
            expires_at: None,
            groups: None,
            addresses: None,
            created_by: None,
            unauthenticated: false,
        }
    }

    pub(super) fn doc(self, text: &str) -> TokenRecord {
        let Self { name, role, operator, expires_at, groups, addresses, created_by, unauthenticated } = self;
        TokenRecord {
            hash: token_hash(text),
            name,
            role,
            operator,
            expires_at,
            last_used_at: None,
            last_used_from: None,
            created_by,
            groups,
            addresses,
            previous: Vec::new(),
            unauthenticated,
        }
    }
}

/// Token whose bearer made another one. The name is a label and proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TokenAuthor {
    /// Id of the token.
    pub token: String,
    /// Name of the token when it was used.
    pub name: String,
}

/// API token.
#[derive(Clone, Debug)]
pub struct ApiToken {
    /// Public id.
    pub id: String,
    /// Note on the token's user.
    pub name: String,
    /// Tenant whose data the token gives access to.
    pub tenant: Arc<Tenant>,
    /// Role, which bounds the access.
    pub role: AccessRole,
    /// Whether the token also manages tenants and their tokens.
    pub operator: bool,
    /// Time of creation.
    pub created_at: UnixMs,
    /// Expiry, if the token has one.
    pub expires_at: Option<UnixMs>,
    /// Names of the groups that the token sees; `None` for all.
    pub groups: Option<Arc<[String]>>,
    /// Networks from which the token is accepted; `None` for all.
    pub addresses: Option<Arc<[IpNet]>>,
    /// Token whose bearer made this one; `None` if the server did, or an older version of it.
    pub created_by: Option<TokenAuthor>,
    /// Whether it was made while no token was required.
    pub unauthenticated: bool,
    /// Last use that was recorded; shared by all copies.
    last_use: Arc<Mutex<LastUse>>,
    hash: String,
    /// Secrets that the token had before a rotation, and that are still good.
    previous: Arc<[PreviousSecret]>,
    /// Version of the entity, which rises with each change.
    pub(super) revision: i64,
}

/// Last use of a token.
#[derive(Clone, Copy, Debug, Default)]
struct LastUse {
    at: Option<UnixMs>,
    from: Option<IpAddr>,
}

/// Secret that a rotation replaced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PreviousSecret {
    hash: String,
    expires_at: UnixMs,
}

/// Stored form of a token.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    hash: String,
    name: String,
    role: AccessRole,
    #[serde(default)]
    operator: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<UnixMs>,
    /// Time of the last use, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used_at: Option<UnixMs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used_from: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_by: Option<TokenAuthor>,
    /// Absent if the token sees all groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<String>>,
    /// Absent if the token is accepted from anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    addresses: Option<Vec<IpNet>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    previous: Vec<PreviousSecret>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unauthenticated: bool,
}

impl TokenRecord {
    /// Replaces the secret. The present one stays good until `until`, unless that has passed.
    pub(super) fn rotate(&mut self, text: &str, until: UnixMs, now: UnixMs) {
        let old = std::mem::replace(&mut self.hash, token_hash(text));
        self.previous.push(PreviousSecret { hash: old, expires_at: until });
        self.previous.retain(|secret| now < secret.expires_at);
    }

    /// Returns the number of replaced secrets that are good at this time.
    pub(super) fn live_previous(&self, now: UnixMs) -> usize {
        self.previous.iter().filter(|secret| now < secret.expires_at).count()
    }
}

impl ApiToken {
    pub(super) fn from_record(
        doc: TokenRecord,
        id: String,
        tenant: Arc<Tenant>,
        created_at: UnixMs,
        revision: i64,
    ) -> Self {
        Self {
            id,
            name: doc.name,
            tenant,
            role: doc.role,
            operator: doc.operator,
            created_at,
            expires_at: doc.expires_at,
            groups: doc.groups.map(Into::into),
            addresses: doc.addresses.map(Into::into),
            created_by: doc.created_by,
            unauthenticated: doc.unauthenticated,
            last_use: Arc::new(Mutex::new(LastUse { at: doc.last_used_at, from: doc.last_used_from })),
            hash: doc.hash,
            previous: doc.previous.into(),
            revision,
        }
    }

    /// Returns the same token of its tenant as that is now.
    pub(super) fn of_tenant(&self, tenant: &Arc<Tenant>) -> Self {
        Self { tenant: Arc::clone(tenant), ..self.clone() }
    }

    /// Returns the token as the author of another one.
    #[must_use]
    pub fn author(&self) -> TokenAuthor {
        TokenAuthor { token: self.id.clone(), name: self.name.clone() }
    }

    /// Returns whether the token has not expired, and was not made while no token was required.
    #[must_use]
    pub fn is_live(&self, now: UnixMs) -> bool {
        !self.unauthenticated && self.expires_at.is_none_or(|end| now < end)
    }

    /// Returns whether the token is good when it is shown by the secret of this hash.
    #[must_use]
    pub fn is_good(&self, hash: &str, now: UnixMs) -> bool {
        let replaced = self.previous.iter().find(|secret| secret.hash == hash);
        let is_secret = replaced.map_or(hash == self.hash, |secret| now < secret.expires_at);
        is_secret && self.is_live(now)
    }

    /// Returns the time from which the secret of this hash is no longer good, unless the token is changed before; `None` if there is none.
    #[must_use]
    pub fn good_until(&self, hash: &str) -> Option<UnixMs> {
        let replaced = self.previous.iter().find(|secret| secret.hash == hash).map(|secret| secret.expires_at);
        replaced.into_iter().chain(self.expires_at).min()
    }

    /// Returns whether the token is accepted from this address.
    #[must_use]
    pub fn is_accepted_from(&self, address: Option<IpAddr>) -> bool {
        let Some(networks) = &self.addresses else { return true };
        address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
    }

    pub(super) fn is_of_hash(&self, hash: &str) -> bool {
        self.hash == hash
    }

    /// Returns the hashes of all its secrets.
    pub(super) fn hashes(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.hash.as_str()).chain(self.previous.iter().map(|secret| secret.hash.as_str()))
    }

    /// Returns the time of the last use, to the minute.
    #[must_use]
    pub fn last_used_at(&self) -> Option<UnixMs> {
        self.last_use().at
    }

    /// Returns the address of the last use that was recorded.
    #[must_use]
    pub fn last_used_from(&self) -> Option<IpAddr> {
        self.last_use().from
    }

    fn last_use(&self) -> LastUse {
        *self.last_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a use; returns false if the last one was after `since`.
    pub(super) fn note_use(&self, now: UnixMs, from: Option<IpAddr>, since: UnixMs) -> bool {
        let mut last = self.last_use.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_some_and(|at| at > since) {
            return false;
        }
        *last = LastUse { at: Some(now), from };
        true
    }
}

impl From<&ApiToken> for TokenRecord {
    fn from(token: &ApiToken) -> Self {
        let LastUse { at, from } = token.last_use();
        Self {
            hash: token.hash.clone(),
            name: token.name.clone(),
            role: token.role,
            operator: token.operator,
            expires_at: token.expires_at,
            last_used_at: at,
            last_used_from: from,
            created_by: token.created_by.clone(),
            groups: token.groups.as_deref().map(<[String]>::to_vec),
            addresses: token.addresses.as_deref().map(<[IpNet]>::to_vec),
            previous: token.previous.to_vec(),
            unauthenticated: token.unauthenticated,
        }
    }
}
