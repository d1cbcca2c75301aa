//! API tokens in the catalog.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::entities::TokenDoc;
use super::secrets::{new_token, token_hash};
use super::{AccessRole, ApiToken, Catalog, CatalogError, document, validation};
use carillon_core::clock::{Clock, UnixMs};
use carillon_core::job::TenantId;
use carillon_store::{Kind, Precondition, PutEntity, Store};

/// Id of the token that the configuration names: there is only one, so a new one replaces the previous one.
const CONFIGURED_ID: &str = "configuration";

/// Name of the operator's token that the server makes, and of the one that the configuration names.
pub const FIRST_OPERATOR: &str = "first administrator";

/// Precision of the recorded last use of a token. Each record is a write to the store.
const USE_RESOLUTION: Duration = Duration::from_secs(3600);

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
}

impl NewToken {
    /// Returns the token of a server's first operator.
    #[must_use]
    pub fn first_operator() -> Self {
        Self { name: FIRST_OPERATOR.to_owned(), role: AccessRole::Admin, operator: true, expires_at: None }
    }

    fn doc(self, text: &str) -> TokenDoc {
        let Self { name, role, operator, expires_at } = self;
        TokenDoc { hash: token_hash(text), name, role, operator, expires_at, last_used_at: None }
    }
}

impl Catalog {
    /// Returns the token with this text, unless it has expired.
    #[must_use]
    pub fn token(&self, token: &str) -> Option<Arc<ApiToken>> {
        let known = self.state().token_by_hash(&token_hash(token)).cloned()?;
        known.is_live(self.now()).then_some(known)
    }

    /// Returns the tenant's tokens, with those that have expired.
    #[must_use]
    pub fn tokens(&self, tenant: TenantId) -> Vec<Arc<ApiToken>> {
        self.state().tokens_of(tenant).cloned().collect()
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
    pub async fn create_token(&self, tenant: TenantId, new: NewToken) -> Result<(Arc<ApiToken>, String), CatalogError> {
        let text = self.new_token_text();
        let made = self.add_token(tenant, new, &text).await?;
        Ok((made, text))
    }

    /// Makes a token with this text.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn add_token(&self, tenant: TenantId, new: NewToken, text: &str) -> Result<Arc<ApiToken>, CatalogError> {
        validation::token_name(&new.name)?;
        let doc = document(&new.doc(text));
        self.put(self.entity(tenant, Kind::ApiToken, &new_id(&*self.clock), doc, Precondition::Nothing)).await?;
        self.token(text).ok_or(CatalogError::Gone)
    }

    /// Makes this text the operator's token from the configuration, and revokes the one that the configuration named before.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn configure_token(&self, tenant: TenantId, text: &str) -> Result<(), CatalogError> {
        let hash = token_hash(text);
        let known = self.configured_token(tenant);
        if known.as_ref().is_none_or(|known| known.hash != hash) {
            let doc = document(&NewToken::first_operator().doc(text));
            self.put(self.entity(tenant, Kind::ApiToken, CONFIGURED_ID, doc, Precondition::Anything)).await?;
            if known.is_some() {
                tracing::warn!("replaced the configured operator token; the previous one is no longer valid");
            }
        }
        // An older version gave each such token an id of its own, and so made others with the same text.
        let same = self.tokens(tenant).into_iter().filter(|token| token.hash == hash && token.id != CONFIGURED_ID);
        for token in same {
            self.delete_token(tenant, &token.id).await?;
        }
        Ok(())
    }

    /// Returns the token that the configuration named, at this start or before.
    #[must_use]
    pub fn configured_token(&self, tenant: TenantId) -> Option<Arc<ApiToken>> {
        self.tokens(tenant).into_iter().find(|token| token.id == CONFIGURED_ID)
    }

    /// Returns whether any operator has a valid token.
    #[must_use]
    pub fn has_operator(&self) -> bool {
        let now = self.now();
        let tenants = self.tenants();
        let mut tokens = tenants.iter().flat_map(|tenant| self.tokens(tenant.id));
        tokens.any(|token| token.operator && token.is_live(now))
    }

    /// Records the use of a token, to the hour. The write happens in the background.
    pub fn note_use(self: &Arc<Self>, token: &Arc<ApiToken>) {
        let (now, last) = (self.now(), token.last_used.load(Ordering::Relaxed));
        let is_known = last != NEVER && now < UnixMs(last).plus(USE_RESOLUTION);
        if is_known || token.last_used.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let (catalog, token) = (Arc::clone(self), Arc::clone(token));
        tokio::spawn(async move {
            let doc = document(&TokenDoc::from(&*token));
            // If the token was changed or revoked meanwhile, that change stays.
            let expect = Precondition::Version(token.revision);
            let put = catalog.entity(token.tenant.id, Kind::ApiToken, &token.id, doc, expect);
            if let Err(error) = catalog.put(put).await {
                tracing::debug!(id = token.id, %error, "recording the use of a token failed");
            }
        });
    }

    /// Revokes a token; returns false if there is none.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn delete_token(&self, tenant: TenantId, id: &str) -> Result<bool, CatalogError> {
        self.delete(tenant, Kind::ApiToken, id).await
    }
}

/// Makes an operator's token in a store, without a running server, and returns its text.
///
/// # Errors
/// Returns an error if the store fails, or if no server has ever used it.
pub async fn recover_operator(tenant: &str, store: &dyn Store, clock: &dyn Clock) -> anyhow::Result<String> {
    let (_, entities) = store.load().await?;
    let found = entities.iter().find(|entity| entity.kind == Kind::Tenant && entity.name == tenant);
    let tenant =
        found.ok_or_else(|| anyhow::anyhow!("no server has used this store: the first start makes a token"))?;
    let text = new_token(clock);
    let new = NewToken { name: "recovered operator".to_owned(), ..NewToken::first_operator() };
    let put = PutEntity {
        tenant: tenant.id,
        kind: Kind::ApiToken,
        name: new_id(clock),
        doc: document(&new.doc(&text)),
        now: clock.now(),
        expect: Precondition::Nothing,
        needs: Vec::new(),
        component: None,
    };
    store.put(put).await?;
    Ok(text)
}

/// Last use of a token that was never used.
pub(super) const NEVER: i64 = i64::MIN;

fn new_id(clock: &dyn Clock) -> String {
    let mut id = [0; 8];
    clock.fill_random(&mut id);
    hex::encode(id)
}

impl ApiToken {
    /// Returns whether the token has not expired.
    #[must_use]
    pub fn is_live(&self, now: UnixMs) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// Returns the time of the last use, to the hour.
    #[must_use]
    pub fn last_used_at(&self) -> Option<UnixMs> {
        Some(self.last_used.load(Ordering::Relaxed)).filter(|last| *last != NEVER).map(UnixMs)
    }

    pub(super) fn last_use_of(doc: &TokenDoc) -> Arc<AtomicI64> {
        Arc::new(AtomicI64::new(doc.last_used_at.map_or(NEVER, |at| at.0)))
    }
}

impl From<&ApiToken> for TokenDoc {
    fn from(token: &ApiToken) -> Self {
        Self {
            hash: token.hash.clone(),
            name: token.name.clone(),
            role: token.role,
            operator: token.operator,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at(),
        }
    }
}
