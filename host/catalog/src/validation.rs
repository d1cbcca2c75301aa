//! Validation of what a tenant writes: names, and policies, which the plugins themselves check.

use std::sync::Arc;

use serde_json::Value;

use super::budget::CheckBudget;
use super::error::CatalogError;
use super::{Catalog, Group, PluginVersion, Tenant};
use carillon_core::job::{TenantId, check_name};
use carillon_core::limits::ByteLimit;
use carillon_core::text::is_hidden;
use carillon_policy::binding::{AuthHeader, ClientKey, Effective, Invalid, Use};
use carillon_policy::{KeyKind, QueueKey};

/// Maximum depth of nesting of a stored document. JSON is parsed to a depth of 127, and the document is stored inside of others.
const NESTING: usize = 96;

impl CatalogError {
    /// Returns the same error for a document of which this one is a part.
    #[must_use]
    pub fn within(self, prefix: &str) -> Self {
        match self {
            Self::Invalid(invalid) => Self::Invalid(invalid.within(prefix)),
            Self::Exceeded(exceeded) => Self::Exceeded(exceeded.within(prefix)),
            other => other,
        }
    }

    /// Returns the error with a pointer into a job's overrides, which are configs: `/retry/config/base` in the group is `/retry/base` in the
    /// job.
    pub(super) fn without_config(self) -> Self {
        match self {
            Self::Invalid(invalid) => {
                Self::Invalid(Invalid { pointer: invalid.pointer.replacen("/config", "", 1), ..invalid })
            }
            other => other,
        }
    }
}

/// Returns the error for a group that names a key that is not granted to it.
pub(super) fn not_granted(key: &str, group: &str) -> String {
    format!("the key `{key}` is not granted to the group `{group}`")
}

/// Checks a name; see [`check_name`].
pub(super) fn name(what: &str, name: &str) -> Result<(), Invalid> {
    check_name(what, name).map_err(|message| Invalid::at("", message))
}

/// Checks the name of a token, which is a note: any text of one line.
pub(super) fn token_name(name: &str, limit: ByteLimit) -> Result<(), CatalogError> {
    limit.check("name", "/name", name.len())?;
    if name.contains(is_hidden) {
        return Err(Invalid::at("/name", "the name of a token must have no control or invisible characters").into());
    }
    Ok(())
}

/// Checks that a document to be stored can be parsed again.
pub(super) fn nesting(doc: &Value) -> Result<(), Invalid> {
    if is_nested_within(doc, NESTING) {
        return Ok(());
    }
    Err(Invalid::at("", format!("the document is nested more than {NESTING} levels deep")))
}

fn is_nested_within(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else { return false };
    match value {
        Value::Array(items) => items.iter().all(|item| is_nested_within(item, below)),
        Value::Object(members) => members.values().all(|member| is_nested_within(member, below)),
        _ => true,
    }
}

/// Checks a config against its plugin's schema, if the request's budget has room for it.
fn check_schema(version: &PluginVersion, config: &str, budget: &mut CheckBudget) -> Result<(), Invalid> {
    let config: Value = serde_json::from_str(config).unwrap_or_default();
    budget.take(&version.doc.config_schema, &config).map_err(|message| Invalid::at("/config", message))?;
    version.schema.validator(&version.doc.config_schema).map_err(|error| Invalid::at("/plugin", error))?;
    let checked = budget.timed(|| version.check_config(&config));
    checked.map_err(|message| Invalid::at("/config", message))?.map_err(|error| error.within("/config"))
}

impl Catalog {
    /// Asks every plugin of a policy whether it accepts its config, and checks keys and bounds. Without a group, the policy is one that any
    /// group may inherit.
    pub(super) async fn check_policy(
        &self,
        tenant: &Tenant,
        group: Option<&str>,
        effective: &Effective,
    ) -> Result<(), CatalogError> {
        self.check_changes(tenant, group, None, effective, &mut self.check_budget()).await
    }

    /// Returns the whole budget of one request's config checks.
    #[must_use]
    pub fn check_budget(&self) -> CheckBudget {
        CheckBudget::new(self.bounds.checks)
    }

    /// Checks a policy as [`Catalog::check_policy`] does, but does not ask plugins about configs that are those of `checked`.
    pub(super) async fn check_changes(
        &self,
        tenant: &Tenant,
        group: Option<&str>,
        checked: Option<&Effective>,
        effective: &Effective,
        budget: &mut CheckBudget,
    ) -> Result<(), CatalogError> {
        let is_checked = |used: &Use| {
            let mut known = checked.into_iter().flat_map(Effective::uses);
            known.any(|known| {
                (known.role, &known.plugin, &known.digest) == (used.role, &used.plugin, &used.digest)
                    && known.config == used.config
            })
        };
        for used in effective.uses().filter(|used| !is_checked(used)) {
            self.check_use(tenant, used, budget).await?;
        }
        // The check has loaded the plugins. A tenant that binds many and calls none must not keep all of them loaded.
        self.plans.shed(&self.runtime.registry);
        self.check_keys(tenant, group, effective)?;
        let limits = &effective.limits;
        if limits.timeout > self.bounds.max_timeout {
            let most = carillon_core::duration::format(self.bounds.max_timeout);
            return Err(Invalid::at(
                "/limits/timeout",
                format!("`timeout` must be at most {most} (`delivery.max_timeout`)"),
            )
            .into());
        }
        if let Some(group) = effective.observe.as_ref().and_then(|used| used.jobs.as_deref()) {
            self.jobs_group(tenant.id, group).map_err(|message| Invalid::at("/observe/jobs", message))?;
        }
        let most = self.bounds.max_recorded_body;
        if limits.recorded_body.is_some_and(|size| size > most) {
            return Err(Invalid::at(
                "/limits/recorded_body",
                format!("`recorded_body` must be at most {most} bytes (`delivery.response_judge_limit`)"),
            )
            .into());
        }
        match &effective.dead_letters {
            Some(group) if self.group(tenant.id, group).is_none() => {
                Err(Invalid::at("/dead_letters", format!("there is no group `{}`", group.escape_debug())).into())
            }
            _ => Ok(()),
        }
    }

    /// Returns the group of the jobs that an observer requests. It must not have an observer that requests jobs itself, such as this one:
    /// each job would cause another one without end.
    ///
    /// # Errors
    /// Returns a sentence if there is no such group, or if it has such an observer.
    pub fn jobs_group(&self, tenant: TenantId, name: &str) -> Result<Arc<Group>, String> {
        let shown = name.escape_debug();
        let group = self.group(tenant, name).ok_or_else(|| format!("there is no group `{shown}`"))?;
        let observer = group.effective.as_ref().ok().and_then(|effective| effective.observe.as_ref());
        if observer.is_some_and(|used| used.jobs.is_some()) {
            Err(format!("the observer of the group `{shown}` requests jobs itself, which could continue without end"))
        } else {
            Ok(group)
        }
    }

    /// Checks that a group uses only keys that are granted to it, that keys for signing are not sent, and that keys for sending do not sign.
    fn check_keys(&self, tenant: &Tenant, group: Option<&str>, effective: &Effective) -> Result<(), Invalid> {
        let kind = |key: &str, pointer: &str| {
            let known = self.key(tenant.id, key);
            let known =
                known.ok_or_else(|| Invalid::at(pointer, format!("there is no key `{}`", key.escape_debug())))?;
            match group.filter(|group| !known.is_granted_to(group)) {
                Some(group) => Err(Invalid::at(pointer, not_granted(key, group))),
                None => Ok(known.newest.kind),
            }
        };
        for (index, key) in effective.sign.iter().flat_map(|used| &used.keys).enumerate() {
            let pointer = format!("/sign/keys/{index}");
            let name = match kind(key, &pointer)? {
                KeyKind::Secret | KeyKind::Ed25519 => continue,
                KeyKind::Header => "header",
                KeyKind::TlsClient => "tls-client",
            };
            return Err(Invalid::at(pointer, format!("the key `{key}` has the kind `{name}` and cannot sign")));
        }
        for AuthHeader { key, pointer, .. } in &effective.auth_headers {
            if kind(key, pointer)? != KeyKind::Header {
                let message = format!("the key `{key}` must have the kind `header` to be sent in a header");
                return Err(Invalid::at(pointer, message));
            }
        }
        if let Some(ClientKey { key }) = &effective.client_key
            && kind(key, ClientKey::POINTER)? != KeyKind::TlsClient
        {
            let message = format!("the key `{key}` must have the kind `tls-client` to be shown to receivers");
            return Err(Invalid::at(ClientKey::POINTER, message));
        }
        Ok(())
    }

    /// Asks a plugin whether it accepts its config. The schema's check runs where the plugin's own check runs: on threads for checks, in the
    /// tenant's turn.
    async fn check_use(&self, tenant: &Tenant, used: &Use, budget: &mut CheckBudget) -> Result<(), CatalogError> {
        let at =
            |part: &str, message: String| CatalogError::from(Invalid::at(format!("{}{part}", used.pointer), message));
        let version = self.plugin(tenant.id, &used.plugin);
        let version = version.ok_or_else(|| at("/plugin", format!("there is no plugin `{}`", used.plugin)))?;
        if !version.doc.roles.contains(&used.role) {
            let roles = version.doc.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ");
            return Err(at("/plugin", format!("`{}` cannot {}; its roles are: {roles}", used.plugin, used.role)));
        }
        let lane = QueueKey::of_tenant(tenant.id);
        let (checked, text) = (Arc::clone(&version), Arc::clone(&used.config));
        let mut spent = *budget;
        let check = move || (check_schema(&checked, &text, &mut spent), spent);
        let done = self.runtime.check_threads.run(lane, check).await;
        let (result, spent) = done.map_err(|fault| at("/config", fault.to_string()))?;
        *budget = spent;
        result.map_err(|error| at(&error.pointer, error.message))?;
        let plugin = self.runtime.registry.get(&used.digest, self).await?;
        let (limits, text) = (Arc::clone(&self.runtime.limits), Arc::clone(&used.config));
        let called = self.runtime.check_threads.run(lane, move || plugin.check(&limits, &text)).await;
        let answer = called.and_then(|called| called.result);
        answer.map_err(|fault| at("/config", fault.to_string()))?.map_err(|said| at("/config", said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_that_could_not_be_read_again_is_refused() {
        let nested = |levels: usize| (1..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]));
        assert!(nesting(&nested(NESTING)).is_ok());
        assert!(nesting(&nested(NESTING + 1)).is_err());
        let text = nested(NESTING).to_string();
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }

    #[test]
    fn token_names_are_short_texts_of_one_line() {
        let limit = ByteLimit { bytes: 255, setting: "limits.name" };
        for good in ["", "billing (Anna's laptop)", &"x".repeat(255)] {
            assert!(token_name(good, limit).is_ok(), "{good}");
        }
        for bad in ["a\0b", "a\nb", "a\u{85}b", &"x".repeat(256)] {
            assert!(token_name(bad, limit).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_plain() {
        for good in ["a", "9", "Group.one_two-3", &"x".repeat(64)] {
            assert!(name("group", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "-a", "a/b", "ä", "a b", "a\n", &"x".repeat(65)] {
            assert!(name("group", bad).is_err(), "{bad}");
        }
    }
}
