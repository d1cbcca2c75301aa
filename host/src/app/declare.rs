//! What the configuration says exists: tenants, groups, the first token.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Deserialize as _;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::accept::{AUTH_KEY, Mount, group_doc, group_patch};
use crate::catalog::{AccessRole, Author, Catalog, DEFAULT_TENANT, KeyValue, SignerDoc, Tenant, TenantDoc};
use crate::config::Config;
use crate::policy::KeyKind;
use crate::policy::binding::{QuotaDoc, is_as_written};
use crate::timetable::Zone;

/// Puts the tenants and groups of the configuration in force. Writes only what differs, so that a restart changes no version.
pub(super) async fn configured(config: &Config, catalog: &Catalog) -> anyhow::Result<()> {
    let tenant = catalog.tenant(DEFAULT_TENANT).context("the default tenant does not exist")?;
    catalog.candidate(&tenant, None, &Value::Object(serde_json::Map::new())).await.context("defaults")?;
    for (name, tenant) in &config.tenants {
        let context = || format!("tenants.{name}");
        let known = catalog.tenant(name);
        // A quota, and signers, that the configuration does not name are whoever's who has set it.
        let named = tenant
            .quota
            .as_ref()
            .map(QuotaDoc::deserialize)
            .transpose()
            .with_context(|| format!("{}.quota", context()))?;
        let quota = named.or_else(|| Some(known.as_ref()?.quota.doc.clone())).unwrap_or_default();
        let signers = tenant.plugin_signers.as_ref().map(Vec::<SignerDoc>::deserialize).transpose();
        let signers = signers.with_context(|| format!("{}.plugin_signers", context()))?;
        let plugin_signers = signers.or_else(|| Some(known.as_ref()?.signers.docs())).unwrap_or_default();
        let is_known = known.is_some_and(|known| {
            let same = known.quota.doc == quota && known.signers.docs() == plugin_signers;
            same && is_as_written(&known.defaults, &tenant.defaults)
        });
        if !is_known {
            let doc = TenantDoc { defaults: tenant.defaults.clone(), quota, plugin_signers };
            catalog.put_tenant(name, doc).await.with_context(context)?;
        }
        declare_groups(catalog, name, &tenant.groups).await.with_context(|| format!("tenants.{name}"))?;
    }
    declare_groups(catalog, DEFAULT_TENANT, &config.groups).await?;
    declare_mounts(config, catalog, &tenant).await
}

fn configuration() -> Author {
    Author::server("the configuration")
}

async fn declare_groups(catalog: &Catalog, tenant: &str, groups: &BTreeMap<String, Value>) -> anyhow::Result<()> {
    let tenant = catalog.tenant(tenant).context("the tenant does not exist")?;
    for (name, own) in groups {
        if catalog.group(tenant.id, name).is_none_or(|known| !is_as_written(&known.own, own)) {
            catalog
                .put_group(&tenant, name, own.clone(), &configuration())
                .await
                .with_context(|| format!("groups.{name}"))?;
        }
    }
    Ok(())
}

/// Puts what receivers of poussetaches' tasks know the server by, unless it is there.
async fn declare_auth_key(config: &Config, catalog: &Catalog, tenant: &Tenant) -> anyhow::Result<()> {
    let Some(secret) = &config.compat.poussetaches.auth_key else { return Ok(()) };
    let known = catalog.key(tenant.id, AUTH_KEY).and_then(|key| key.newest.material.as_ref()?.header().ok());
    if known.is_none_or(|known| known.as_bytes() != secret.as_bytes()) {
        let secret = Zeroizing::new(secret.clone().into_bytes());
        let value = KeyValue { kind: KeyKind::Header, secret, overlap: None, groups: None };
        let put = catalog.put_key(tenant.id, AUTH_KEY, value).await;
        put.context("compat.poussetaches.auth_key")?;
    }
    Ok(())
}

/// Checks what the groups of the mounts would be made with, and lays what is configured over those of the default tenant that exist.
async fn declare_mounts(config: &Config, catalog: &Catalog, tenant: &Tenant) -> anyhow::Result<()> {
    if let Some(zone) = &config.compat.poussetaches.time_zone {
        zone.parse::<Zone>().context("compat.poussetaches.time_zone")?;
    }
    if config.compat.poussetaches.mount.enabled {
        declare_auth_key(config, catalog, tenant).await?;
    }
    for mount in Mount::ALL {
        let settings = mount.settings(&config.compat);
        if !settings.enabled {
            continue;
        }
        let context = || format!("compat.{}", mount.name());
        let doc = group_doc(mount, &config.compat, catalog, tenant.id);
        catalog.candidate(tenant, Some(&settings.group), &doc).await.with_context(context)?;
        let Some(known) = catalog.group(tenant.id, &settings.group) else { continue };
        let mut own = known.own.clone();
        json_patch::merge(&mut own, &group_patch(mount, &config.compat, catalog, tenant.id));
        if own != known.own {
            catalog.put_group(tenant, &settings.group, own, &configuration()).await.with_context(context)?;
        }
    }
    Ok(())
}

/// Makes sure that somebody can get in: with the configured token, or with a new one at the first start.
pub(super) async fn first_token(config: &Config, catalog: &Catalog) -> anyhow::Result<Option<String>> {
    if !config.auth.enabled {
        return Ok(None);
    }
    let tenant = catalog.tenant(DEFAULT_TENANT).context("the default tenant does not exist")?;
    const NAME: &str = "first administrator";
    match &config.auth.admin_token {
        Some(token) if catalog.token(token).is_some() => Ok(None),
        Some(token) => {
            catalog.add_token(tenant.id, NAME, AccessRole::Admin, true, token).await?;
            Ok(None)
        }
        None if catalog.tokens(tenant.id).iter().any(|token| token.operator) => Ok(None),
        None => Ok(Some(catalog.create_token(tenant.id, NAME, AccessRole::Admin, true).await?.1)),
    }
}
