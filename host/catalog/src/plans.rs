//! Plans: bindings with their plugins loaded and their keys ready.

use std::sync::Arc;

use serde_json::Value;

use super::validation::not_granted;
use super::{Catalog, Group};
use carillon_policy::binding::{AuthHeader, Effective, Invalid, Use};
use carillon_policy::{Blame, Fault, FaultCode, KeyMaterial, Plan, PlanStep, Role};

impl Catalog {
    /// Returns the plan of a group's job. Without overrides it is made once for each version of the group, and cached as long as there is
    /// room.
    ///
    /// # Errors
    /// Returns the role for which something that the binding names is gone or does not load, with the fault. The job can wait until it is
    /// back.
    pub async fn plan(&self, group: &Group, overrides: Option<&Value>) -> Result<Arc<Plan>, (Role, Fault)> {
        let unusable = |error: Invalid| (error.role(), fault(FaultCode::Unavailable, error.to_string()));
        match overrides {
            Some(overrides) => {
                let effective = self.overridden(group, overrides).map_err(unusable)?;
                // Boxed here and below, because nearly all attempts find their plan made, and carry no room for the making.
                let plan = Box::pin(self.make_plan(group, &effective)).await?;
                // A plan with overrides is not cached, but the plugins that were loaded for it would stay loaded.
                self.plans.shed(&self.runtime.registry);
                Ok(plan)
            }
            None => {
                let effective = group.effective.as_ref().map_err(|error| unusable(error.clone()))?;
                // Read before the keys: a plan that was made while they changed is made again.
                let keys_epoch = self.state().keys_epoch(group.tenant.id);
                if let Some(plan) = self.plans.get(&group.plan, keys_epoch) {
                    return Ok(plan);
                }
                let plan = Box::pin(self.make_plan(group, effective)).await?;
                self.plans.put(&group.plan, &plan, keys_epoch);
                self.plans.shed(&self.runtime.registry);
                Ok(plan)
            }
        }
    }

    /// Makes a plan of a policy that is not bound yet.
    ///
    /// # Errors
    /// Returns the errors of [`Catalog::plan`].
    pub async fn make_plan(&self, group: &Group, effective: &Effective) -> Result<Arc<Plan>, (Role, Fault)> {
        let signing = |fault| (Role::Sign, fault);
        let mut encode = Vec::with_capacity(effective.encode.len());
        for used in &effective.encode {
            encode.push(self.step(used).await?);
        }
        let sign = match &effective.sign {
            Some(used) => {
                let keys = used
                    .keys
                    .iter()
                    .map(|key| self.granted(group, key))
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(signing)?;
                Some((self.step(used).await?, keys.concat()))
            }
            None => None,
        };
        // These headers are set where requests are signed.
        let sendable = |header: &AuthHeader| Ok((header.clone(), self.sendable(group, &header.key).map_err(signing)?));
        let auth_headers = effective.auth_headers.iter().map(sendable).collect::<Result<_, _>>()?;
        let client_key = effective.client_key.as_ref();
        let client_key = client_key.map(|tls| self.client_key(group, &tls.key)).transpose().map_err(signing)?;
        let (judge, retry) = (self.step(&effective.judge).await?, self.step(&effective.retry).await?);
        Ok(Arc::new(Plan { encode, sign, auth_headers, client_key, judge, retry }))
    }

    /// Returns the group's observer, if it has one. It is not part of the plan: a delivery does not depend on it.
    ///
    /// # Errors
    /// Returns a fault if the observer is gone or does not load.
    pub async fn observer(&self, group: &Group) -> Result<Option<PlanStep>, Fault> {
        match group.effective.as_ref().ok().and_then(|effective| effective.observe.as_ref()) {
            Some(used) => self.step(used).await.map(Some).map_err(|(_, fault)| fault),
            None => Ok(None),
        }
    }

    async fn step(&self, used: &Use) -> Result<PlanStep, (Role, Fault)> {
        let plugin = match self.runtime.registry.loaded(&used.digest) {
            Some(plugin) => plugin,
            None => {
                let loaded = self.runtime.registry.get(&used.digest, self).await;
                loaded.map_err(|error| {
                    (used.role, fault(FaultCode::Unavailable, format!("`{}`: {error}", used.plugin)))
                })?
            }
        };
        Ok(PlanStep {
            role: used.role,
            name: used.plugin.to_string().into(),
            plugin,
            config: Arc::clone(&used.config),
            config_digest: used.config_digest.clone(),
        })
    }

    /// Returns a key's versions, newest first. An older one that cannot be decrypted is left out; the newest one is an error.
    fn granted(&self, group: &Group, key: &str) -> Result<Vec<Arc<KeyMaterial>>, Fault> {
        let found = self.state().key(group.tenant.id, key).cloned();
        // A key that a group binds was granted to it at that time, and may no longer be.
        if found.as_ref().is_some_and(|found| !found.is_granted_to(&group.name)) {
            return Err(fault(FaultCode::MissingKey, not_granted(key, &group.name)));
        }
        let versions = found.and_then(|key| {
            let newest = key.newest.material.clone()?;
            let older = key.older.iter().filter_map(|version| version.material.clone());
            Some(std::iter::once(newest).chain(older).collect())
        });
        versions.ok_or_else(|| {
            fault(FaultCode::MissingKey, format!("the key `{key}` does not exist or cannot be decrypted"))
        })
    }

    /// Returns a key to be sent. A key that was put again may be a signing key by now, which must not be sent.
    fn sendable(&self, group: &Group, key: &str) -> Result<Arc<KeyMaterial>, Fault> {
        let newest = self.granted(group, key)?.into_iter().next();
        match newest.filter(|material| material.header().is_ok()) {
            Some(material) => Ok(material),
            None => Err(fault(FaultCode::MissingKey, format!("the key `{key}` is not of the kind `header`"))),
        }
    }

    /// Returns a client certificate to be shown to receivers.
    fn client_key(&self, group: &Group, key: &str) -> Result<Arc<KeyMaterial>, Fault> {
        let newest = self.granted(group, key)?.into_iter().next();
        newest
            .filter(|material| material.tls_client().is_ok())
            .ok_or_else(|| fault(FaultCode::MissingKey, format!("the key `{key}` is not of the kind `tls-client`")))
    }
}

fn fault(code: FaultCode, message: String) -> Fault {
    Fault { code, blame: Blame::Config, message }
}
