//! Plugins in the catalog.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::audit::Cause;
use super::change::{MAX_TRIES, busy};
use super::entities::SHARED;
use super::shared_plugins::Sharing;
use super::{BoundPlugin, Catalog, CatalogError, Group, PluginVersion, Tenant, document, validation};
use carillon_core::audit::{Origin, Verb};
use carillon_core::job::TenantId;
use carillon_core::text::clean;
use carillon_policy::binding::{Effective, Invalid, PluginName, Use};
use carillon_policy::{CompileBudget, Digest, LoadError, PluginRecord, Role, examine};
use carillon_store::{Kind, Precondition, PutEntity};

/// Maximum time in which an upload must describe itself and pass its golden tests.
const EXAMINATION: Duration = Duration::from_secs(60);

/// Uploaded component.
#[derive(Debug)]
pub struct Upload {
    /// Name of the plugin.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// Bytes of the component.
    pub component: Bytes,
    /// Ed25519 signature of the bytes in base64, if the upload has one.
    pub signature: Option<String>,
    /// Tenants that an operator shares the version with. Without it, the version is the tenant's own.
    pub sharing: Option<Sharing>,
}

impl Catalog {
    /// Returns a plugin that the tenant can see; the newest version if none is named.
    #[must_use]
    pub fn plugin(&self, tenant: TenantId, name: &PluginName) -> Option<Arc<PluginVersion>> {
        self.state().plugin(tenant, name).cloned()
    }

    /// Returns the versions of a plugin that the tenant can see, oldest first.
    #[must_use]
    pub fn plugin_versions(&self, tenant: TenantId, name: &str) -> Vec<Arc<PluginVersion>> {
        let state = self.state();
        state.plugins_seen_by(tenant).filter(|plugin| plugin.name == name).cloned().collect()
    }

    /// Returns every plugin version that the tenant can see, the server's own first.
    #[must_use]
    pub fn plugins(&self, tenant: TenantId) -> Vec<Arc<PluginVersion>> {
        self.state().plugins_seen_by(tenant).cloned().collect()
    }

    /// Returns the maximum time in which an upload is accepted or rejected.
    #[must_use]
    pub fn upload_time(&self) -> Duration {
        self.runtime.registry.admission_time() + EXAMINATION
    }

    /// Accepts a component as a version of one of the tenant's plugins, or as a shared one; returns whether it is new. The same bytes are
    /// accepted again, and then share a shared version as the upload says; other bytes under the same version are not.
    ///
    /// # Errors
    /// Returns the reason why the component is not accepted, as a sentence for its author.
    pub async fn put_plugin(
        &self,
        tenant: &Tenant,
        upload: Upload,
        origin: &Origin,
    ) -> Result<(Arc<PluginVersion>, bool), CatalogError> {
        let Upload { name, version, component, signature, sharing } = upload;
        let owner = if sharing.is_some() { SHARED } else { tenant.id };
        let tenants = sharing.as_ref().map(|sharing| self.tenants_of(sharing)).transpose()?.flatten();
        validation::name("plugin", &name)?;
        if self.state().is_builtin(&name) {
            return Err(CatalogError::Conflict(format!("`{name}` is one of the server's own plugins")));
        }
        if version.parse::<semver::Version>().is_err() {
            let shown = version.escape_default();
            return Err(Invalid::at("", format!("`{shown}` is not a semantic version such as `1.4.0`")).into());
        }
        self.bounds.requests.name.check("version", "", version.len())?;
        let full = PluginName { name, version: Some(version) };
        let hashed = component.clone();
        // A component has megabytes: the async threads have other work.
        let digest = tokio::task::spawn_blocking(move || Digest::from_bytes(&hashed)).await;
        let digest = digest.map_err(|error| LoadError::Description(error.to_string()))?;
        if let Some(known) = self.same(owner, &full, &digest)? {
            return self.shared_again(known, sharing.as_ref(), origin).await;
        }
        self.check_name_is_free(owner, &full.name)?;
        let signed_by = match sharing {
            Some(_) => None,
            None => {
                self.check_room(tenant, component.len())?;
                tenant.signers.verify(&component, signature.as_deref())?
            }
        };
        let seconds = self.tenant_limits(tenant.id).compile_seconds;
        let budget = CompileBudget { seconds, now: self.clock.now() };
        let admitted = self.runtime.registry.admit(tenant.id, budget, &component).await?;
        let described = examine(&self.runtime, tenant.id, &admitted.plugin, &component);
        let described = tokio::time::timeout(EXAMINATION, described).await.map_err(|_| {
            let most = carillon_core::duration::format(EXAMINATION);
            LoadError::Golden(format!("the component's description and its golden tests take longer than {most}"))
        })??;
        let said = PluginName { name: described.name, version: Some(described.version) };
        if said != full && !is_draft(&full, &said) {
            let text =
                format!("it states the name `{}`, but was uploaded as `{full}`", said.to_string().escape_debug());
            return Err(LoadError::Description(text).into());
        }
        let (size, doc) = (described.doc.size, PluginRecord { signed_by, tenants, ..described.doc });
        let (cause, name) = (Cause::change(origin, Verb::PLUGIN_PUT), full.to_string());
        let entity = self.entity(&cause, owner, Kind::Plugin, &name, document(&doc), Precondition::Nothing);
        let put = PutEntity { component: Some((digest.to_string(), component)), ..entity };
        let _accepting = self.accepting.lock().await;
        // A name that another node has shared a moment ago counts.
        self.refresh().await?;
        if let Some(known) = self.same(owner, &full, &digest)? {
            return Ok((known, false));
        }
        self.check_name_is_free(owner, &full.name)?;
        if sharing.is_none() {
            self.check_room(tenant, size)?;
        }
        match self.put(put).await {
            // Another caller was faster, perhaps with the same bytes.
            Err(CatalogError::Conflict(text)) => {
                self.refresh().await?;
                let known = self.same(owner, &full, &digest)?;
                known.map(|known| (known, false)).ok_or(CatalogError::Conflict(text))
            }
            Err(rejected) => Err(rejected),
            Ok(_) => {
                self.runtime.registry.keep(&admitted).await;
                Ok((self.plugin(owner, &full).ok_or(CatalogError::Gone)?, true))
            }
        }
    }

    /// Checks whether the tenant may have another version of `size` bytes.
    fn check_room(&self, tenant: &Tenant, size: usize) -> Result<(), CatalogError> {
        self.check_plugins(tenant.id)?;
        let (state, quota) = (self.state(), &tenant.quota.doc);
        let bytes = state.plugins_of(tenant.id).fold(size, |bytes, plugin| bytes + plugin.doc.size);
        match quota.plugin_bytes.filter(|most| bytes > *most) {
            Some(most) => Err(CatalogError::TooLarge(format!(
                "the tenant's quota allows {most} bytes of plugins; with this one they would have {bytes}"
            ))),
            None => Ok(()),
        }
    }

    /// Returns the version if it exists and has these bytes.
    fn same(
        &self,
        tenant: TenantId,
        name: &PluginName,
        digest: &Digest,
    ) -> Result<Option<Arc<PluginVersion>>, CatalogError> {
        match self.plugin(tenant, name) {
            Some(known) if known.doc.digest != *digest => Err(CatalogError::Conflict(format!(
                "`{name}` exists with the digest {}; a version never changes",
                known.doc.digest
            ))),
            known => Ok(known),
        }
    }

    /// Marks a version as deprecated, with a reason; `None` removes the mark. Returns `None` if there is no such version. The tenant
    /// [`SHARED`] stands for the shared versions.
    ///
    /// # Errors
    /// Returns an error if the version is one of the server's own, or is shared with the tenant.
    pub async fn deprecate_plugin(
        &self,
        tenant: TenantId,
        name: &PluginName,
        deprecated: Option<String>,
        origin: &Origin,
    ) -> Result<Option<Arc<PluginVersion>>, CatalogError> {
        let _accepting = self.accepting.lock().await;
        let Some(plugin) = self.own_plugin(tenant, name)? else { return Ok(None) };
        let deprecated = deprecated.map(|why| clean(&why).into_owned());
        if let Some(why) = &deprecated {
            self.bounds.requests.note.check("deprecated", "/deprecated", why.len())?;
            if why.is_empty() {
                return Err(Invalid::at("/deprecated", "`deprecated` must not be empty").into());
            }
        }
        let doc = document(&PluginRecord { deprecated, ..plugin.doc.clone() });
        let full = plugin.full_name();
        let needs = vec![(tenant.0, full.clone())];
        let cause = Cause::change(origin, Verb::PLUGIN_DEPRECATE);
        let put = self.entity(&cause, tenant, Kind::Plugin, &full, doc, Precondition::Anything);
        self.put(PutEntity { needs, ..put }).await?;
        Ok(self.plugin(tenant, name))
    }

    /// Removes a version; returns false if there is none. The tenant [`SHARED`] stands for the shared versions.
    ///
    /// # Errors
    /// Returns an error if the version is one of the server's own, is shared with the tenant, or is in use.
    pub async fn delete_plugin(
        &self,
        tenant: TenantId,
        name: &PluginName,
        origin: &Origin,
    ) -> Result<bool, CatalogError> {
        let cause = Cause::change(origin, Verb::PLUGIN_DELETE);
        for _ in 0..MAX_TRIES {
            // A binding that another node made a moment ago counts; one that is made from now on makes this decide again.
            self.refresh().await?;
            let generation = self.memory.generation();
            let Some(plugin) = self.own_plugin(tenant, name)? else { return Ok(false) };
            let user = if plugin.shared { self.user_among(&plugin, |_| true) } else { self.user_of(tenant, &plugin) };
            if let Some(user) = user {
                let verb = if user.ends_with('s') { "use" } else { "uses" };
                return Err(CatalogError::Conflict(format!("{user} {verb} it")));
            }
            let full = plugin.full_name();
            match self.delete_unchanged(&cause, tenant, Kind::Plugin, &full, Some(generation)).await {
                Err(CatalogError::Conflict(_)) => {}
                done => return done,
            }
        }
        Err(busy())
    }

    /// Returns the uploaded versions among the plugins of a policy, with their owners. The policy cannot be put in force when one of them is
    /// gone.
    pub(super) fn needs(&self, tenant: TenantId, plugins: &[BoundPlugin]) -> Vec<(i64, String)> {
        let state = self.state();
        let named = plugins.iter().map(|bound| (PluginName::from(bound.plugin.as_str()).name, &bound.plugin));
        let uploaded = named.filter(|(name, _)| !state.is_builtin(name));
        uploaded.map(|(name, full)| (state.owner_of(tenant, &name).0, full.clone())).collect()
    }

    /// Returns warnings about a group's policy.
    #[must_use]
    pub fn warnings(&self, group: &Group) -> Vec<String> {
        group.effective.as_ref().map_or_else(|_| Vec::new(), |effective| self.warnings_of(&group.tenant, effective))
    }

    /// Returns warnings about a policy: plugins that are deprecated, and signers without a key.
    #[must_use]
    pub fn warnings_of(&self, tenant: &Tenant, effective: &Effective) -> Vec<String> {
        let warnings = |used: &Use| {
            let plugin = self.plugin(tenant.id, &used.plugin)?;
            let deprecated = plugin.doc.deprecated.as_ref();
            let deprecated =
                deprecated.map(|why| format!("{}: `{}` is deprecated: {why}", used.role, plugin.full_name()));
            let has_no_key = used.role == Role::Sign && used.keys.is_empty() && plugin.doc.uses_keys;
            let no_key = has_no_key.then(|| {
                format!(
                    "sign: `{}` signs with keys, but `sign.keys` names none: jobs wait until it names one",
                    plugin.full_name()
                )
            });
            Some(deprecated.into_iter().chain(no_key))
        };
        effective.uses().filter_map(warnings).flatten().chain(self.unusable_keys(tenant, effective)).collect()
    }

    /// Returns warnings about keys of a policy that cannot be decrypted.
    fn unusable_keys(&self, tenant: &Tenant, effective: &Effective) -> Vec<String> {
        let unusable =
            effective.keys().filter(|name| self.key(tenant.id, name).is_none_or(|key| key.newest.material.is_none()));
        unusable
            .map(|name| {
                format!("the key `{name}` cannot be decrypted: it was encrypted under another master key; put it again")
            })
            .collect()
    }

    /// Returns a version of one of the tenant's own plugins; for [`SHARED`], of a shared one.
    pub(super) fn own_plugin(
        &self,
        tenant: TenantId,
        name: &PluginName,
    ) -> Result<Option<Arc<PluginVersion>>, CatalogError> {
        match self.plugin(tenant, name) {
            Some(plugin) if plugin.builtin => {
                Err(CatalogError::Conflict(format!("`{}` is one of the server's own plugins", plugin.name)))
            }
            Some(plugin) if plugin.shared && tenant != SHARED => Err(CatalogError::Conflict(format!(
                "`{}` is shared by the server's operator: only an operator can change or delete it, with `shared=true`",
                plugin.full_name()
            ))),
            plugin => Ok(plugin),
        }
    }

    /// Returns the use that keeps a version from being removed.
    pub(super) fn user_of(&self, tenant: TenantId, plugin: &PluginVersion) -> Option<String> {
        let name = plugin.full_name();
        // Another version, such as a draft, may have the same bytes.
        let is_it = |version: &Option<String>| version.as_ref().is_none_or(|it| *it == plugin.version.to_string());
        let uses = |used: &Use| {
            used.plugin.name == plugin.name && used.digest == plugin.doc.digest && is_it(&used.plugin.version)
        };
        for group in self.groups(tenant) {
            if group.effective.iter().flat_map(|effective| effective.uses()).any(uses) {
                return Some(format!("the group `{}`", group.name));
            }
            let bound = self.bindings(&group);
            if let Some(version) = bound.iter().find(|version| version.plugins.iter().any(|it| it.plugin == name)) {
                return Some(format!("version {} of the policy of the group `{}`", version.number, group.name));
            }
        }
        let tenant = self.tenants().into_iter().find(|known| known.id == tenant)?;
        let empty = Value::Object(serde_json::Map::new());
        let defaults = self.state().effective(&tenant, None, &empty).ok()?;
        defaults.uses().any(uses).then(|| "the tenant's defaults".to_owned())
    }
}

/// Returns whether a name is that of a draft: `0.1.0-dev.3` of `0.1.0`, `0.1.0-rc.1.dev.3` of `0.1.0-rc.1`. An author who develops a plugin
/// needs many versions, and a component states only one.
fn is_draft(name: &PluginName, of: &PluginName) -> bool {
    let (Some(name_version), Some(version)) = (&name.version, &of.version) else { return false };
    let dot = if version.contains('-') { "." } else { "-" };
    let number =
        name_version.strip_prefix(version.as_str()).and_then(|rest| rest.strip_prefix(dot)?.strip_prefix("dev."));
    let is_number = number.is_some_and(|text| text.parse::<u32>().is_ok_and(|number| number.to_string() == text));
    name.name == of.name && !version.contains('+') && is_number
}
