//! Who is asking, and what they may do.
//!
//! Rights are looked at when a request comes, again when its body is there, and all the time while something is open: see
//! [`until_revoked`].

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ApiState;
use super::audit::{Caller, Known};
use super::auth_failures::Verdict;
use super::error::Problem;
use carillon_catalog::{AccessRole, ApiToken, DEFAULT_TENANT, Tenant, TokenAuthor, token_hash};
use carillon_core::audit::Origin;
use carillon_core::clock::UnixMs;
use carillon_core::job::{TenantId, check_name};

/// Lets an operator act for another tenant.
const TENANT_HEADER: &str = "carillon-tenant";

/// What a request may do.
#[derive(Clone, Debug)]
pub struct Access {
    /// Whose data it sees.
    pub tenant: Arc<Tenant>,
    /// How far.
    pub role: AccessRole,
    /// Whether it may manage tenants.
    pub operator: bool,
    /// Names of the groups that it sees; `None` for all of the tenant's.
    pub groups: Option<Arc<[String]>>,
    /// The token, if one was asked for.
    credential: Option<Arc<Credential>>,
    caller: Caller,
    /// Whether the request names the tenant.
    names_tenant: bool,
}

/// Token by which a request was let in.
#[derive(Debug)]
struct Credential {
    token: Arc<ApiToken>,
    /// Hash of the secret that was shown.
    hash: String,
    from: Option<IpAddr>,
}

impl Access {
    /// Returns the name of the token, or its id if it has no name; `None` if no token was asked for.
    pub(super) fn by(&self) -> Option<String> {
        let token = &self.credential.as_ref()?.token;
        Some(if token.name.is_empty() { &token.id } else { &token.name }.clone())
    }

    /// Returns the origin of what the request changes.
    pub(super) fn origin(&self) -> Origin {
        self.known().origin()
    }

    /// Returns the tenant whose audit log the request sees; `None` if it sees all of it.
    pub(super) fn audited_tenant(&self) -> Option<TenantId> {
        let sees_all = self.operator && !self.names_tenant;
        (!sees_all).then_some(self.tenant.id)
    }

    /// Returns the client, for what follows the response.
    pub(super) fn known(&self) -> Known {
        let token = self.credential.as_ref().map(|credential| Arc::clone(&credential.token));
        Known { caller: self.caller.clone(), token, tenant: Arc::clone(&self.tenant) }
    }

    /// Returns the token as the author of another one.
    pub(super) fn token_author(&self) -> Option<TokenAuthor> {
        self.credential.as_ref().map(|credential| credential.token.author())
    }
}

/// Access of a request whose body is still to be read: it may end meanwhile.
#[derive(Clone)]
pub(super) struct Standing {
    api: Arc<ApiState>,
    access: Access,
}

impl Standing {
    pub(super) fn new(api: &Arc<ApiState>, access: &Access) -> Self {
        Self { api: Arc::clone(api), access: access.clone() }
    }

    /// Refuses what is still on its way when its token is no longer good.
    pub(super) fn check(&self) -> Result<(), Problem> {
        check_again(&self.api, &self.access)
    }
}

/// Refusal of a client.
pub(super) struct Denied {
    pub(super) problem: Box<Problem>,
    /// The client, if its token shows who it is.
    pub(super) known: Option<Box<Known>>,
}

impl From<Problem> for Denied {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), known: None }
    }
}

impl Denied {
    fn new(problem: Problem, token: &Arc<ApiToken>, caller: &Caller) -> Self {
        let tenant = Arc::clone(&token.tenant);
        let known = Known { caller: caller.clone(), token: Some(Arc::clone(token)), tenant };
        Self { problem: Box::new(problem), known: Some(Box::new(known)) }
    }

    /// Returns the response, which has the client in its extensions.
    pub(super) fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        self.known.map(|known| response.extensions_mut().insert(*known));
        response
    }
}

/// What a route requires of its client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Requirement {
    /// A role, or one that may do more.
    Role(AccessRole),
    /// The management of tenants.
    Operator,
}

impl Requirement {
    /// Refuses an access that does not meet the requirement.
    pub(super) fn check(self, access: &Access) -> Result<(), Problem> {
        match self {
            Self::Role(role) if access.role < role => {
                Err(Problem::forbidden(format!("the token's role is {}; the request requires {role}", access.role)))
            }
            Self::Operator if !access.operator => {
                let detail = "only an operator's token, such as the one of the first start, can manage tenants";
                Err(Problem::forbidden(detail))
            }
            Self::Role(_) | Self::Operator => Ok(()),
        }
    }
}

/// What a request with these headers may do.
pub(super) fn access_of(api: &ApiState, headers: &HeaderMap, caller: &Caller) -> Result<Access, Denied> {
    let access = if api.config.auth {
        token_access(api, headers, caller)?
    } else {
        let tenant = api.services.catalog.tenant(DEFAULT_TENANT).ok_or_else(Problem::internal)?;
        let (role, caller) = (AccessRole::Admin, caller.clone());
        Access { tenant, role, operator: true, groups: None, credential: None, caller, names_tenant: false }
    };
    let Some(name) = named_tenant(headers)? else { return Ok(access) };
    let access = Access { names_tenant: true, ..access };
    if name == access.tenant.name {
        return Ok(access);
    }
    if !access.operator {
        let problem = Problem::forbidden("only an operator's token can act for another tenant (`Carillon-Tenant`)");
        return Err(match &access.credential {
            Some(credential) => Denied::new(problem, &credential.token, caller),
            None => problem.into(),
        });
    }
    let tenant = api.services.catalog.tenant(name).ok_or_else(|| Problem::unknown("tenant", name))?;
    Ok(Access { tenant, ..access })
}

fn token_access(api: &ApiState, headers: &HeaderMap, caller: &Caller) -> Result<Access, Denied> {
    let from = caller.address;
    if !headers.contains_key(header::AUTHORIZATION) {
        return Err(Problem::unauthenticated().into());
    }
    let hash = token_of(headers).map(|text| token_hash(&text));
    let known = hash.and_then(|hash| api.services.catalog.token_by_hash(&hash).map(|token| (token, hash)));
    let Some((token, hash)) = known.filter(|(token, hash)| token.is_good(hash, api.services.clock.now())) else {
        return Err(failed(api, from, Problem::unauthenticated()).into());
    };
    if !token.is_accepted_from(from) {
        let detail = "the token is not accepted from this address: its `addresses` name other networks";
        return Err(Denied::new(failed(api, from, Problem::forbidden(detail)), &token, caller));
    }
    if token.tenant.suspended && !token.operator {
        return Err(Denied::new(Problem::suspended(&token.tenant.name), &token, caller));
    }
    api.services.catalog.note_use(&token, from);
    Ok(Access {
        tenant: Arc::clone(&token.tenant),
        role: token.role,
        operator: token.operator,
        groups: token.groups.clone(),
        credential: Some(Arc::new(Credential { token, hash, from })),
        caller: caller.clone(),
        names_tenant: false,
    })
}

/// Counts a failure to authenticate, and returns what it is answered with.
fn failed(api: &ApiState, from: Option<IpAddr>, problem: Problem) -> Problem {
    match api.auth_failures.note(from) {
        Verdict::Answered => problem,
        Verdict::Refused => {
            api.services.telemetry.metrics.refused("auth.failure_rate");
            Problem::too_many_failures()
        }
    }
}

/// Returns the token of an access as it is now, if it still gives the access.
fn present(api: &ApiState, access: &Access) -> Option<Arc<ApiToken>> {
    let Credential { token, hash, from } = access.credential.as_deref()?;
    let present = api.services.catalog.token_by_hash(hash)?;
    let is_same = present.id == token.id && present.tenant.id == token.tenant.id && present.groups == token.groups;
    let reaches = present.role >= access.role && present.operator >= access.operator;
    let is_good = present.is_good(hash, api.services.clock.now()) && present.is_accepted_from(*from);
    (is_same && reaches && is_good).then_some(present)
}

/// Checks whether a request that was let in would be let in now.
pub(super) fn check_again(api: &ApiState, access: &Access) -> Result<(), Problem> {
    let tenant = api.services.catalog.tenant(&access.tenant.name);
    let Some(tenant) = tenant.filter(|tenant| tenant.id == access.tenant.id) else {
        return Err(Problem::unauthenticated());
    };
    if tenant.suspended && !access.operator {
        return Err(Problem::suspended(&tenant.name));
    }
    if access.credential.is_none() || present(api, access).is_some() { Ok(()) } else { Err(Problem::unauthenticated()) }
}

/// Returns the same as [`check_again`], without the reason.
pub(super) fn is_good(api: &ApiState, access: &Access) -> bool {
    check_again(api, access).is_ok()
}

/// Returns when the access ends: its token is revoked, expires or loses rights, or its tenant is suspended or gone.
pub(super) async fn until_revoked(api: &ApiState, access: &Access) {
    loop {
        let changed = api.services.catalog.changed().notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if !is_good(api, access) {
            return;
        }
        let hash = access.credential.as_ref().map(|credential| &credential.hash);
        let end = hash.and_then(|hash| present(api, access)?.good_until(hash)).unwrap_or(UnixMs::MAX);
        tokio::select! {
            () = changed => {}
            () = api.services.clock.sleep_until(end) => {}
        }
    }
}

/// Returns the tenant that the request names, if it names one.
///
/// # Errors
/// Returns a problem for whatever is not exactly one name: what cannot be read must not mean the token's own tenant.
fn named_tenant(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let (value, other) = (values.next(), values.next());
    let Some(value) = value else { return Ok(None) };
    let name = value.to_str().ok().filter(|name| other.is_none() && check_name("tenant", name).is_ok());
    let detail = "`Carillon-Tenant` must be given once, with the name of one tenant";
    name.map(Some).ok_or_else(|| Problem::malformed(None, detail))
}

/// The token of a `Bearer` or a `Basic` header; in the latter it is the password, or the user if there is no password.
fn token_of(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, value) = value.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(value.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(if password.is_empty() { user } else { password }.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn token(authorization: &str) -> Option<String> {
        token_of(&HeaderMap::from_iter([(header::AUTHORIZATION, authorization.parse().unwrap())]))
    }

    #[test]
    fn tokens_come_as_bearer_or_as_basic() {
        assert_eq!(token("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(token("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!(token(&format!("Basic {}", STANDARD.encode(":abc"))).as_deref(), Some("abc"));
        assert_eq!(token(&format!("Basic {}", STANDARD.encode("abc:"))).as_deref(), Some("abc"));
        assert_eq!(token("Digest abc"), None);
        assert_eq!(token("Basic !!!"), None);
        let mut twice = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static("Bearer abc"))]);
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer def"));
        assert_eq!(token_of(&twice), None);
    }

    #[test]
    fn tenant_is_named_once_or_not_at_all() {
        let named = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(TENANT_HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            named_tenant(&headers).map(|name| name.map(str::to_owned)).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(named(&[]), Ok(None));
        assert_eq!(named(&[b"acme"]), Ok(Some("acme".to_owned())));
        let refused: [&[&[u8]]; 10] = [
            &[b""],
            &[b"acm\xe9"],
            &["acmé".as_bytes()],
            &[b"acme, other"],
            &[b"acme other"],
            &[b"acme\tother"],
            &[b"-acme"],
            &[b"acme", b"acme"],
            &[b"acme", b""],
            &[b"acme", b"\xff"],
        ];
        for values in refused {
            assert_eq!(named(values), Err(400), "{values:?}");
        }
    }
}
