//! API tokens in the catalog.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::audit::{Cause, Readers};
use super::change::{Decision, MAX_TRIES, busy};
use super::secrets::{new_token, token_hash};
use super::token::{ApiToken, NewToken, TokenRecord};
use super::{AccessRole, Catalog, CatalogError, document, validation};
use carillon_core::audit::{Actor, ActorKind, AuditEntry, AuditId, AuditObject, Origin, Outcome, Verb};
use carillon_core::clock::{Clock, UnixMs};
use carillon_core::job::TenantId;
use carillon_store::{Audit, Kind, Precondition, PutEntity, Store};

/// Id of the token that the configuration names: there is only one, so a new one replaces the previous one.
const CONFIGURED_ID: &str = "configuration";

/// Name of the operator's token that the server makes, and of the one that the configuration names.
pub const FIRST_OPERATOR: &str = "first administrator";

/// Precision of the recorded last use of a token. Each record is a write to the store.
const USE_RESOLUTION: Duration = Duration::from_secs(60);

/// Largest number of replaced secrets of a token that are good at the same time.
const MAX_PREVIOUS_SECRETS: usize = 8;

/// Rotation of a token's secret.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// How long the present secret stays good.
    pub overlap: Duration,
    /// New expiry of the token; `None` keeps the present one.
    pub expires_at: Option<UnixMs>,
}

impl NewToken {
    /// Returns the token of a server's first operator.
    #[must_use]
    pub fn first_operator() -> Self {
        Self { operator: true, ..Self::new(FIRST_OPERATOR, AccessRole::Admin) }
    }
}

impl Catalog {
    /// Returns the token that has a secret with this hash, whether or not it is still good.
    #[must_use]
    pub fn token_by_hash(&self, hash: &str) -> Option<Arc<ApiToken>> {
        self.state().token_by_hash(hash).cloned()
    }

    /// Returns a tenant's token.
    #[must_use]
    pub fn token(&self, tenant: TenantId, id: &str) -> Option<Arc<ApiToken>> {
        self.state().token(tenant, id).cloned()
    }

    /// Returns the tenant's tokens, with those that have expired and those of operators.
    #[must_use]
    pub fn tokens(&self, tenant: TenantId) -> Vec<Arc<ApiToken>> {
        self.state().tokens_of(tenant).cloned().collect()
    }

    /// Returns the tokens of operators, with those that have expired. They belong to no tenant, whichever they are stored with.
    #[must_use]
    pub fn operator_tokens(&self) -> Vec<Arc<ApiToken>> {
        self.state().tokens().filter(|token| token.operator).cloned().collect()
    }

    /// Returns the number of tokens that were made while no token was required.
    #[must_use]
    pub fn unauthenticated_tokens(&self) -> usize {
        self.state().tokens().filter(|token| token.unauthenticated).count()
    }

    /// Returns the text of a new token.
    #[must_use]
    pub fn new_token_text(&self) -> String {
        new_token(&*self.clock)
    }

    /// Makes a token. Its text is returned once and not stored.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn create_token(
        &self,
        tenant: TenantId,
        new: NewToken,
        origin: &Origin,
    ) -> Result<(Arc<ApiToken>, String), CatalogError> {
        let text = self.new_token_text();
        let made = self.add_token(tenant, new, &text, origin).await?;
        Ok((made, text))
    }

    /// Makes a token with this text.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn add_token(
        &self,
        tenant: TenantId,
        new: NewToken,
        text: &str,
        origin: &Origin,
    ) -> Result<Arc<ApiToken>, CatalogError> {
        validation::token_name(&new.name, self.bounds.requests.name)?;
        let cause = Cause::token(origin, Verb::TOKEN_CREATE, Readers::of_token(new.operator));
        let (id, doc) = (new_id(&*self.clock), document(&new.doc(text)));
        self.put(self.entity(&cause, tenant, Kind::ApiToken, &id, doc, Precondition::Nothing)).await?;
        self.token_by_hash(&token_hash(text)).ok_or(CatalogError::Gone)
    }

    /// Gives a token another secret under the same id, and returns that secret, which is not stored.
    ///
    /// # Errors
    /// Returns an error if the configuration sets the secret, if too many replaced ones are still good, or if the store fails.
    pub async fn rotate_token(
        &self,
        token: &ApiToken,
        rotation: Rotation,
        origin: &Origin,
    ) -> Result<(Arc<ApiToken>, String), CatalogError> {
        if token.id == CONFIGURED_ID {
            let detail = "the configuration sets the secret of this token (`auth.admin_token`): change it there";
            return Err(CatalogError::Conflict(detail.to_owned()));
        }
        let text = self.new_token_text();
        let (tenant, id) = (token.tenant.id, &token.id);
        let cause = Cause::token(origin, Verb::TOKEN_ROTATE, Readers::of_token(token.operator));
        let decide = |present: Option<&ApiToken>| {
            let present = present.ok_or(CatalogError::Gone)?;
            let (mut doc, now) = (TokenRecord::from(present), self.now());
            if doc.live_previous(now) >= MAX_PREVIOUS_SECRETS {
                let detail =
                    format!("{MAX_PREVIOUS_SECRETS} earlier secrets of the token are still valid: wait until one ends");
                return Err(CatalogError::Conflict(detail));
            }
            doc.rotate(&text, now.plus(rotation.overlap), now);
            doc.expires_at = rotation.expires_at.or(doc.expires_at);
            let expect = Precondition::Version(present.revision);
            Ok(Decision::from(self.entity(&cause, tenant, Kind::ApiToken, id, document(&doc), expect)))
        };
        self.change(|| self.token(tenant, id), decide).await?;
        let rotated = self.token_by_hash(&token_hash(&text)).ok_or(CatalogError::Gone)?;
        Ok((rotated, text))
    }

    /// Makes this text the operator's token from the configuration, and revokes the one that the configuration named before.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn configure_token(&self, tenant: TenantId, text: &str, origin: &Origin) -> Result<(), CatalogError> {
        let hash = token_hash(text);
        let known = self.token(tenant, CONFIGURED_ID);
        if known.as_ref().is_none_or(|known| !known.is_of_hash(&hash)) {
            let doc = document(&NewToken::first_operator().doc(text));
            let cause = Cause::token(origin, Verb::TOKEN_CREATE, Readers::Operators);
            self.put(self.entity(&cause, tenant, Kind::ApiToken, CONFIGURED_ID, doc, Precondition::Anything)).await?;
            if known.is_some() {
                tracing::warn!("replaced the configured operator token; the previous one is no longer valid");
            }
        }
        // An older version gave each such token an id of its own, and so made others with the same text.
        let same = self.tokens(tenant).into_iter().filter(|token| token.is_of_hash(&hash) && token.id != CONFIGURED_ID);
        for token in same {
            self.delete_token(&token, origin).await?;
        }
        Ok(())
    }

    /// Revokes the token that the configuration named before; returns false if there is none.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn withdraw_configured_token(&self, tenant: TenantId, origin: &Origin) -> Result<bool, CatalogError> {
        let Some(token) = self.token(tenant, CONFIGURED_ID) else { return Ok(false) };
        self.delete_token(&token, origin).await
    }

    /// Returns whether any operator has a valid token.
    #[must_use]
    pub fn has_operator(&self) -> bool {
        let now = self.now();
        self.state().tokens().any(|token| token.operator && token.is_live(now))
    }

    /// Records the use of a token and its address, to the minute. The write happens in the background.
    pub fn note_use(self: &Arc<Self>, token: &Arc<ApiToken>, from: Option<IpAddr>) {
        let now = self.now();
        if !token.note_use(now, from, now.minus(USE_RESOLUTION)) {
            return;
        }
        let (catalog, token) = (Arc::clone(self), Arc::clone(token));
        tokio::spawn(async move {
            let doc = document(&TokenRecord::from(&*token));
            // If the token was changed or revoked meanwhile, that change stays.
            let expect = Precondition::Version(token.revision);
            let put = catalog.entity(&Cause::Upkeep, token.tenant.id, Kind::ApiToken, &token.id, doc, expect);
            if let Err(error) = catalog.put(put).await {
                tracing::debug!(id = token.id, %error, "recording the use of a token failed");
            }
        });
    }

    /// Revokes a token; returns false if it is gone already.
    ///
    /// # Errors
    /// Returns a conflict if no other operator's token would be left.
    pub async fn revoke_token(&self, token: &ApiToken, origin: &Origin) -> Result<bool, CatalogError> {
        let tenant = token.tenant.id;
        if !token.operator || !token.is_live(self.now()) {
            return self.delete_token(token, origin).await;
        }
        let cause = Cause::token(origin, Verb::TOKEN_REVOKE, Readers::Operators);
        let _changing = self.changing.lock().await;
        for _ in 0..MAX_TRIES {
            // An operator's token that another node revoked a moment ago does not count; one that is revoked from now on makes this decide again.
            self.refresh().await?;
            let now = self.now();
            let is_other = |other: &Arc<ApiToken>| (other.tenant.id, &other.id) != (tenant, &token.id);
            if !self.operator_tokens().iter().any(|other| is_other(other) && other.is_live(now)) {
                let detail = "the token is the last one of an operator: make another one first";
                return Err(CatalogError::Conflict(detail.to_owned()));
            }
            let generation = Some(self.memory.generation());
            match self.delete_unchanged(&cause, tenant, Kind::ApiToken, &token.id, generation).await {
                Err(CatalogError::Conflict(_)) => {}
                done => return done,
            }
        }
        Err(busy())
    }

    async fn delete_token(&self, token: &ApiToken, origin: &Origin) -> Result<bool, CatalogError> {
        let cause = Cause::token(origin, Verb::TOKEN_REVOKE, Readers::of_token(token.operator));
        self.delete(&cause, token.tenant.id, Kind::ApiToken, &token.id).await
    }
}

/// Makes an operator's token in a store, without a running server, and returns its text.
///
/// # Errors
/// Returns an error if the store fails, or if no server has ever used it.
pub async fn recover_operator(
    tenant: &str,
    node: &str,
    store: &dyn Store,
    clock: &dyn Clock,
) -> anyhow::Result<String> {
    let (_, entities) = store.load().await?;
    let found = entities.iter().find(|entity| entity.kind == Kind::Tenant && entity.name == tenant);
    let tenant =
        found.ok_or_else(|| anyhow::anyhow!("no server has used this store: the first start makes a token"))?;
    let text = new_token(clock);
    let new = NewToken { name: "recovered operator".to_owned(), ..NewToken::first_operator() };
    let (id, now) = (new_id(clock), clock.now());
    let put = PutEntity {
        audit: Audit::Recorded(Box::new(recovery(&id, node, clock))),
        tenant: tenant.id,
        kind: Kind::ApiToken,
        name: id,
        doc: document(&new.doc(&text)),
        now,
        expect: Precondition::Nothing,
        needs: Vec::new(),
        component: None,
    };
    store.put(put).await?;
    Ok(text)
}

/// Returns the entry of the audit log for an operator's token that is made on the machine of the store.
fn recovery(id: &str, node: &str, clock: &dyn Clock) -> AuditEntry {
    AuditEntry {
        id: AuditId::new(clock),
        at: clock.now(),
        node: node.to_owned(),
        actor: Actor::new(ActorKind::System),
        tenant: None,
        verb: Verb::TOKEN_CREATE,
        object: AuditObject::new(Kind::ApiToken.as_str(), Some(id.to_owned())),
        changed: Vec::new(),
        address: None,
        request_id: None,
        outcome: Outcome::Done,
        count: 1,
    }
}

fn new_id(clock: &dyn Clock) -> String {
    let mut id = [0; 8];
    clock.fill_random(&mut id);
    hex::encode(id)
}
