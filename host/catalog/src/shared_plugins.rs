//! Plugins that an operator shares: one upload for all tenants, or for some.
//!
//! A shared version belongs to no tenant: no tenant can change or delete it, and no quota counts it. A tenant sees the versions of a name that
//! it has itself, or else those that are shared with it, and never both: a name that a tenant has had first stays its own, and under the name
//! of a plugin that is shared with it, it can upload nothing. So sharing changes no group.

use std::sync::Arc;

use super::audit::Cause;
use super::change::{MAX_TRIES, busy};
use super::entities::SHARED;
use super::{Catalog, CatalogError, PluginVersion, document};
use carillon_core::audit::{Origin, Verb};
use carillon_core::job::TenantId;
use carillon_policy::PluginRecord;
use carillon_policy::binding::{Invalid, PluginName};
use carillon_store::{Kind, Precondition, PutEntity};

/// Tenants that a plugin is shared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All tenants, including those that are made later.
    All,
    /// The tenants of these names, which must exist.
    With(Vec<String>),
}

impl Catalog {
    /// Returns every shared version, whomever it is shared with.
    #[must_use]
    pub fn shared_plugins(&self) -> Vec<Arc<PluginVersion>> {
        self.state().plugins_of(SHARED).cloned().collect()
    }

    /// Returns the names of the tenants that a version is shared with, sorted; `None` if it is shared with all, or is not shared.
    #[must_use]
    pub fn shared_with(&self, plugin: &PluginVersion) -> Option<Vec<String>> {
        let state = self.state();
        let tenants = plugin.doc.tenants.as_ref().filter(|_| plugin.shared)?;
        let names = tenants.iter().filter_map(|id| state.tenant_by_id(*id));
        let mut names: Vec<_> = names.map(|tenant| tenant.name.clone()).collect();
        names.sort_unstable();
        Some(names)
    }

    /// Shares a shared version with other tenants than before. Returns `None` if there is no such version.
    ///
    /// # Errors
    /// Returns an error if a tenant does not exist, or if one that would lose the version uses it.
    pub async fn share_plugin(
        &self,
        name: &PluginName,
        sharing: &Sharing,
        origin: &Origin,
    ) -> Result<Option<Arc<PluginVersion>>, CatalogError> {
        let _accepting = self.accepting.lock().await;
        for _ in 0..MAX_TRIES {
            // A binding that another node made a moment ago counts.
            self.refresh().await?;
            let Some(plugin) = self.own_plugin(SHARED, name)? else { return Ok(None) };
            let tenants = self.tenants_of(sharing)?;
            let loses = |tenant| tenants.as_ref().is_some_and(|tenants| !tenants.contains(&tenant));
            if let Some(user) = self.user_among(&plugin, loses) {
                let verb = if user.ends_with('s') { "use" } else { "uses" };
                return Err(CatalogError::Conflict(format!("{user} {verb} it")));
            }
            let full = plugin.full_name();
            let doc = document(&PluginRecord { tenants, ..plugin.doc.clone() });
            let needs = vec![(SHARED.0, full.clone())];
            let cause = Cause::change(origin, Verb::PLUGIN_SHARE);
            let put = self.entity(&cause, SHARED, Kind::Plugin, &full, doc, Precondition::Anything);
            match self.put(PutEntity { needs, ..put }).await {
                Err(CatalogError::Conflict(_)) => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok(self.plugin(SHARED, name)),
            }
        }
        Err(busy())
    }

    /// Answers an upload of the bytes that a version has: a shared version is shared as the upload says.
    pub(super) async fn shared_again(
        &self,
        known: Arc<PluginVersion>,
        sharing: Option<&Sharing>,
        origin: &Origin,
    ) -> Result<(Arc<PluginVersion>, bool), CatalogError> {
        let Some(sharing) = sharing else { return Ok((known, false)) };
        if self.tenants_of(sharing)? == known.doc.tenants {
            return Ok((known, false));
        }
        let name = PluginName { name: known.name.clone(), version: Some(known.version.to_string()) };
        let shared = self.share_plugin(&name, sharing, origin).await?.ok_or(CatalogError::Gone)?;
        Ok((shared, false))
    }

    /// Returns the numbers of the tenants to share with, sorted; `None` stands for all.
    pub(super) fn tenants_of(&self, sharing: &Sharing) -> Result<Option<Vec<TenantId>>, CatalogError> {
        let Sharing::With(names) = sharing else { return Ok(None) };
        let state = self.state();
        let find = |name: &String| {
            let unknown = || Invalid::at("/tenants", format!("there is no tenant `{}`", name.escape_default()));
            state.tenant(name).map(|tenant| tenant.id).ok_or_else(unknown)
        };
        let mut tenants = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        tenants.sort_unstable();
        tenants.dedup();
        Ok(Some(tenants))
    }

    /// Checks that a tenant may upload versions under a name: none is shared with it.
    pub(super) fn check_name_is_free(&self, owner: TenantId, name: &str) -> Result<(), CatalogError> {
        let found = self.plugin(owner, &PluginName { name: name.to_owned(), version: None });
        if owner != SHARED && found.is_some_and(|plugin| plugin.shared) {
            return Err(CatalogError::Conflict(format!(
                "`{name}` is a plugin that the server's operator shares: upload yours under another name"
            )));
        }
        Ok(())
    }

    /// Returns the use of a shared version by one of these tenants.
    pub(super) fn user_among(&self, plugin: &PluginVersion, tenants: impl Fn(TenantId) -> bool) -> Option<String> {
        let uses = |id| tenants(id) && self.state().owner_of(id, &plugin.name) == SHARED;
        let mut candidates = self.tenants().into_iter().filter(|tenant| uses(tenant.id));
        candidates
            .find_map(|tenant| Some(format!("in the tenant `{}`, {}", tenant.name, self.user_of(tenant.id, plugin)?)))
    }
}
