//! Entities that the configuration declares: tenants, groups, keys.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use serde::Deserialize as _;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use carillon_api::{AUTH_KEY, KeyInput, Mount, OwnLimits, without_preset};
use carillon_catalog::{
    Author, Catalog, DEFAULT_TENANT, KeyValue, PutGroup, SignerInput, Tenant, TenantRecord, Written,
};
use carillon_config::{Config, TenantKey};
use carillon_core::audit::Origin;
use carillon_policy::KeyKind;
use carillon_policy::binding::{Changes, QuotaInput, is_as_written};

/// Puts the tenants and groups of the configuration in force. Writes only what differs, so that a restart changes no version.
pub(super) async fn configured(config: &Config, catalog: &Catalog) -> anyhow::Result<()> {
    let tenant = catalog.tenant(DEFAULT_TENANT).context("the default tenant does not exist")?;
    catalog
        .candidate(&tenant, None, &Value::Object(serde_json::Map::new()))
        .await
        .with_context(|| config.named("defaults"))?;
    for (name, tenant) in &config.tenants {
        let context = || config.named(&format!("tenants.{name}"));
        let known = catalog.tenant(name);
        // A quota or signers that the configuration does not name keep the values that were set through the API.
        let named = tenant
            .quota
            .as_ref()
            .map(QuotaInput::deserialize)
            .transpose()
            .with_context(|| format!("{}.quota", context()))?;
        let quota = named.or_else(|| Some(known.as_ref()?.quota.doc.clone())).unwrap_or_default();
        let signers = tenant.plugin_signers.as_ref().map(Vec::<SignerInput>::deserialize).transpose();
        let signers = signers.with_context(|| format!("{}.plugin_signers", context()))?;
        let plugin_signers = signers.or_else(|| Some(known.as_ref()?.signers.docs())).unwrap_or_default();
        let is_known = known.is_some_and(|known| {
            let same = known.quota.doc == quota && known.signers.docs() == plugin_signers;
            same && is_as_written(&known.defaults, &tenant.defaults)
        });
        if !is_known {
            let doc = TenantRecord { defaults: tenant.defaults.clone(), quota, plugin_signers };
            catalog.put_tenant(name, doc, &Origin::configuration()).await.with_context(context)?;
        }
        let prefix = format!("tenants.{name}.");
        declare_keys(config, catalog, name, &prefix, &tenant.keys).await?;
        declare_groups(config, catalog, name, &prefix, &tenant.groups).await?;
    }
    declare_keys(config, catalog, DEFAULT_TENANT, "", &config.keys.tenant_keys).await?;
    declare_groups(config, catalog, DEFAULT_TENANT, "", &config.groups).await?;
    declare_mounts(config, catalog, &tenant).await
}

fn configuration() -> Author {
    Author::server("the configuration", Origin::configuration())
}

/// Puts the groups of a tenant; `prefix` is the beginning of their sections' names.
async fn declare_groups(
    config: &Config,
    catalog: &Catalog,
    tenant: &str,
    prefix: &str,
    groups: &BTreeMap<String, Value>,
) -> anyhow::Result<()> {
    let tenant = catalog.tenant(tenant).context("the tenant does not exist")?;
    for (name, own) in groups {
        if catalog.group(tenant.id, name).is_none_or(|known| !is_as_written(&known.own.value(), own)) {
            let declared = declare_group(catalog, &tenant, name, Written::Declared(own.clone())).await;
            declared.with_context(|| config.named(&format!("{prefix}groups.{name}")))?;
        }
    }
    Ok(())
}

async fn declare_group(catalog: &Catalog, tenant: &Tenant, name: &str, own: Written) -> anyhow::Result<()> {
    let PutGroup { is_new, changes, .. } = catalog.put_group(tenant, name, own, &configuration()).await?;
    let Changes { removed, added, changed } = changes;
    if !is_new && removed.is_empty() {
        tracing::info!(tenant = tenant.name, group = name, ?added, ?changed, "configuration changed a group");
    } else if !is_new {
        tracing::warn!(
            tenant = tenant.name,
            group = name,
            ?removed,
            ?added,
            ?changed,
            "configuration removed settings from a group"
        );
    }
    Ok(())
}

/// Puts the keys of a tenant that do not exist, or have another value or other groups. Groups may name them, so they come first.
async fn declare_keys(
    config: &Config,
    catalog: &Catalog,
    tenant: &str,
    prefix: &str,
    keys: &BTreeMap<String, TenantKey>,
) -> anyhow::Result<()> {
    let tenant = catalog.tenant(tenant).context("the tenant does not exist")?;
    for (name, key) in keys {
        let context = || config.named(&format!("{prefix}keys.{name}"));
        let value = KeyInput::of_configuration(key).value();
        let value = value.map_err(|problem| anyhow!("{}", problem.detail())).with_context(context)?;
        catalog.declare_key(tenant.id, name, value, &Origin::configuration()).await.with_context(context)?;
    }
    Ok(())
}

/// Puts the key by which receivers of poussetaches' tasks recognize the server, or removes the one that an earlier start has put.
async fn declare_auth_key(config: &Config, catalog: &Catalog, tenant: &Tenant) -> anyhow::Result<()> {
    const CONTEXT: &str = "compat.poussetaches.auth_key";
    let known = catalog.key(tenant.id, AUTH_KEY);
    let Some(secret) = &config.compat.poussetaches.auth_key else {
        let Some(known) = known.filter(|known| known.is_declared) else { return Ok(()) };
        return catalog.withdraw_key(tenant.id, &known, &Origin::configuration()).await.context(CONTEXT);
    };
    let header = known.as_ref().and_then(|key| key.newest.material.as_ref()?.header().ok());
    let is_known =
        known.is_some_and(|known| known.is_declared) && header.is_some_and(|it| it.as_bytes() == secret.as_bytes());
    if !is_known {
        let secret = Zeroizing::new(secret.clone().into_bytes());
        let (kind, is_declared) = (KeyKind::Header, true);
        let value = KeyValue { kind, secret, overlap: None, groups: None, origins: None, is_declared };
        catalog.put_key(tenant.id, AUTH_KEY, value, &Origin::configuration()).await.context(CONTEXT)?;
    }
    Ok(())
}

/// Checks the effective policies of the mounts' groups, and removes the preset from those into which the first version has written it.
async fn declare_mounts(config: &Config, catalog: &Catalog, tenant: &Tenant) -> anyhow::Result<()> {
    declare_auth_key(config, catalog, tenant).await?;
    for mount in Mount::ALL {
        let group = &mount.settings(&config.compat).group;
        let context = || config.named(&format!("compat.{}", mount.name()));
        // The group's own document may be invalid; that stops its jobs and not the server.
        catalog.candidate(tenant, Some(group), &Value::Object(Map::new())).await.with_context(context)?;
        for tenant in catalog.tenants() {
            let Some(known) = catalog.group(tenant.id, group) else { continue };
            let limits = if tenant.name == DEFAULT_TENANT { OwnLimits::Configured } else { OwnLimits::Unknown };
            let (preset, by) = (catalog.preset(tenant.id, group), known.rollout.active.by.as_ref());
            let Some(own) = without_preset(mount, &known.own.value(), &preset, by, limits) else { continue };
            if let Err(error) = declare_group(catalog, &tenant, group, Written::Declared(own)).await {
                let error = format!("{error:#}");
                tracing::warn!(
                    group,
                    tenant = tenant.name,
                    error,
                    "removing a preset from a group failed; the group is unchanged"
                );
            }
        }
    }
    Ok(())
}
