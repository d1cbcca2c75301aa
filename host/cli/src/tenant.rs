//! `carillon tenant`: manages tenants.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{Paging, Session, input};
use carillon_client::ClientError;
use carillon_client::answer::{Answer, Members};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a tenant, or change the given settings of it.
    Put {
        /// Name of the tenant.
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Replace all settings: those that are not given are removed. `sign` is removed only if the defaults contain `"sign": null`.
        #[arg(long)]
        replace: bool,
    },
    /// Change some settings of an existing tenant.
    Patch {
        /// Name of the tenant.
        name: String,
        #[command(flatten)]
        settings: Settings,
        /// Setting to remove: `quota.rate`, `plugin_signers.NAME`, `defaults.sign`. Can be repeated.
        #[arg(long, value_name = "SETTING", value_parser = setting)]
        unset: Vec<(String, String)>,
    },
    /// Show a tenant.
    Get {
        /// Name of the tenant.
        name: String,
    },
    /// List tenants.
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Suspend a tenant: its tokens are refused, and nothing is delivered, ticked or leased. Its jobs stay.
    Suspend {
        /// Name of the tenant.
        name: String,
    },
    /// Resume a suspended tenant.
    Resume {
        /// Name of the tenant.
        name: String,
    },
    /// Delete a tenant with all of its jobs, groups, schedules, keys, tokens and plugins.
    Delete {
        /// Name of the tenant.
        name: String,
        /// Do not ask for confirmation.
        #[arg(short, long)]
        yes: bool,
    },
}

/// Settings of a tenant, as flags.
#[derive(Debug, Args)]
pub struct Settings {
    /// File with the settings that groups inherit, or a part of them, in JSON or TOML, in the form of a group; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    defaults: Option<PathBuf>,
    #[command(flatten)]
    quota: Quota,
    /// Signer of accepted plugins: a name, and a file with an Ed25519 public key in PEM. Can be repeated. Default: plugins need no
    /// signature.
    #[arg(long = "plugin-signer", value_name = "NAME=FILE", value_parser = input::pair)]
    plugin_signers: Vec<(String, String)>,
}

/// Quota of a tenant, as flags.
#[derive(Debug, Default, Args)]
pub struct Quota {
    /// Maximum number of concurrent attempts of all groups together.
    #[arg(long, value_name = "COUNT")]
    concurrency: Option<u32>,
    /// Maximum rate at which attempts start: `100/s`, `600/min`, `5000/h`.
    #[arg(long)]
    rate: Option<String>,
    /// With a rate: maximum number of attempts that start at once after a pause. Default: the count of the rate.
    #[arg(long, value_name = "COUNT")]
    burst: Option<u32>,
    /// Share of the attempts that start, compared with other tenants that have due jobs: 1 to 100.
    #[arg(long, value_name = "COUNT")]
    weight: Option<u32>,
    /// Maximum number of versions of the tenant's own plugins.
    #[arg(long, value_name = "COUNT")]
    plugins: Option<u32>,
    /// Maximum size of these versions together, in bytes.
    #[arg(long, value_name = "BYTES")]
    plugin_bytes: Option<u64>,
    /// Maximum time of compilation of the tenant's uploads within an hour, in seconds, on each node.
    #[arg(long, value_name = "SECONDS")]
    compile_seconds: Option<u64>,
    /// Maximum size of the payloads, documents and attempts of all stored jobs together, in bytes.
    #[arg(long, value_name = "BYTES")]
    stored_bytes: Option<u64>,
    /// Network to which requests may go, of those that the server allows. Can be repeated. The flags of --egress replace all of the former
    /// ones.
    #[arg(long, value_name = "NETWORK")]
    egress_allow: Vec<String>,
    /// Network to which no request may go. Can be repeated.
    #[arg(long, value_name = "NETWORK")]
    egress_deny: Vec<String>,
    /// Port, or range of ports, to which requests may go, of those that the server allows: `443`, `8000-8999`. Can be repeated.
    #[arg(long = "egress-port", value_name = "PORT")]
    egress_ports: Vec<String>,
}

/// Members of a tenant that contain settings.
const PARTS: [&str; 3] = ["defaults", "quota", "plugin_signers"];

/// Parses `quota.rate`: a member, and the setting in it.
fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('.') {
        Some((part, name)) if PARTS.contains(&part) && !name.is_empty() => Ok((part.to_owned(), name.to_owned())),
        _ => Err("this is not a setting, such as `quota.rate`, `plugin_signers.NAME` or `defaults.sign`".to_owned()),
    }
}

impl Quota {
    /// Returns the members that the flags set.
    fn members(&self) -> anyhow::Result<Members> {
        let mut members = Members::default();
        let counts = [("concurrency", self.concurrency), ("burst", self.burst), ("weight", self.weight)];
        for (name, count) in counts.into_iter().chain([("plugins", self.plugins)]) {
            count.map_or(Ok(()), |count| members.put(name, &count))?;
        }
        self.rate.as_ref().map_or(Ok(()), |rate| members.put("rate", rate))?;
        for (name, value) in [
            ("plugin_bytes", self.plugin_bytes),
            ("compile_seconds", self.compile_seconds),
            ("stored_bytes", self.stored_bytes),
        ] {
            value.map_or(Ok(()), |value| members.put(name, &value))?;
        }
        self.egress().map_or(Ok(()), |egress| members.put("egress", &egress))?;
        Ok(members)
    }

    /// Returns the networks and ports, with null for those that are not given: it removes them.
    fn egress(&self) -> Option<Value> {
        let list = |list: &[String]| (!list.is_empty()).then(|| json!(list));
        let (allow, deny, ports) = (list(&self.egress_allow), list(&self.egress_deny), list(&self.egress_ports));
        let is_given = allow.is_some() || deny.is_some() || ports.is_some();
        is_given.then(|| json!({"allow": allow, "deny": deny, "ports": ports}))
    }
}

impl Settings {
    /// Reads the document once: it may be on standard input.
    fn defaults(&self) -> anyhow::Result<Members> {
        self.defaults.as_ref().map_or_else(|| Ok(Members::default()), |file| input::document(file))
    }

    /// Returns the signers' names and public keys.
    fn signers(&self) -> anyhow::Result<Vec<(&str, String)>> {
        let key = |(_, file): &(String, String)| {
            std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))
        };
        let keys = self.plugin_signers.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        Ok(self.plugin_signers.iter().map(|(name, _)| name.as_str()).zip(keys).collect())
    }

    /// Returns all settings of a tenant.
    fn whole(&self, defaults: &Members) -> anyhow::Result<Members> {
        let signer = |(name, key)| json!({ "name": name, "public_key": key });
        let mut body = Members::default();
        body.put("defaults", defaults)?;
        body.put("quota", &self.quota.members()?)?;
        body.put("plugin_signers", &self.signers()?.into_iter().map(signer).collect::<Vec<_>>())?;
        Ok(body)
    }

    /// Returns the settings that were given, and null for those to be removed.
    fn part(&self, defaults: &Members, unset: &[(String, String)]) -> anyhow::Result<Members> {
        let mut parts = [defaults.clone(), self.quota.members()?, Members::default()];
        for (name, key) in self.signers()? {
            parts[2].put(name, &key)?;
        }
        for (part, members) in PARTS.into_iter().zip(&mut parts) {
            for (_, name) in unset.iter().filter(|(its, _)| its == part) {
                ensure!(members.get(name).is_none(), "`{part}.{name}` is both set and unset");
                members.put(name, &Value::Null)?;
            }
        }
        let mut body = Members::default();
        for (part, members) in PARTS.into_iter().zip(parts).filter(|(_, members)| !members.is_empty()) {
            body.put(part, &members)?;
        }
        Ok(body)
    }
}

const LIST: [(&str, &str); 10] = [
    ("NAME", "/name"),
    ("CONCURRENCY", "/quota/concurrency"),
    ("RATE", "/quota/rate"),
    ("WEIGHT", "/quota/weight"),
    ("GROUPS", "/usage/groups"),
    ("PLUGINS", "/usage/plugins"),
    ("PLUGIN QUOTA", "/quota/plugins"),
    ("PLUGIN BYTES", "/usage/plugin_bytes"),
    ("SUSPENDED", "/suspended"),
    ("CREATED", "/created_at"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        match self {
            Self::Put { name, settings, replace: true } => {
                let tenant: Answer = client.put(&["tenants", &name], &settings.whole(&settings.defaults()?)?).await?;
                session.changed(&tenant, &format!("{name}: stored"))
            }
            Self::Put { name, settings, replace: false } => {
                let (path, defaults) = (["tenants", &name], settings.defaults()?);
                let tenant = match client.patch(&path, &[], &settings.part(&defaults, &[])?).await {
                    Err(ClientError::Refused(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {
                        client.put(&path, &settings.whole(&defaults)?).await?
                    }
                    tenant => tenant?,
                };
                session.changed(&tenant, &format!("{name}: stored"))
            }
            Self::Patch { name, settings, unset } => {
                let tenant =
                    client.patch(&["tenants", &name], &[], &settings.part(&settings.defaults()?, &unset)?).await?;
                session.changed(&tenant, &format!("{name}: stored"))
            }
            Self::Get { name } => {
                let tenant: Answer = client.get(&["tenants", &name], &[]).await?;
                session.out.answer(&tenant)
            }
            Self::List { paging } => session.list(&["tenants"], Vec::new(), &paging, &LIST).await,
            Self::Suspend { name } => {
                let tenant: Answer = client.post(&["tenants", &name, "suspend"], &json!({})).await?;
                session.done(&tenant, &format!("{name}: suspended"))
            }
            Self::Resume { name } => {
                let tenant: Answer = client.post(&["tenants", &name, "resume"], &json!({})).await?;
                session.done(&tenant, &format!("{name}: resumed"))
            }
            Self::Delete { name, yes } => {
                if !yes && input::is_terminal() {
                    input::confirm(&format!("The tenant `{name}` will be deleted with all of its data. Continue?"))?;
                }
                session.done(&client.delete(&["tenants", &name]).await?, &format!("{name}: deleted"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_settings_has_what_is_said() {
        let quota = Quota { concurrency: Some(3), ..Quota::default() };
        let settings = Settings { defaults: None, quota, plugin_signers: Vec::new() };
        let none = Members::default();
        let part =
            settings.part(&none, &[setting("quota.rate").unwrap(), setting("plugin_signers.ci").unwrap()]).unwrap();
        let expected = r#"{"quota":{"concurrency":3,"rate":null},"plugin_signers":{"ci":null}}"#;
        assert_eq!(serde_json::to_string(&part).unwrap(), expected);
        assert!(settings.part(&none, &[setting("quota.concurrency").unwrap()]).is_err());
        assert!(setting("rate").is_err() && setting("quota.").is_err() && setting("x.y").is_err());
        let ports = Quota { egress_ports: vec!["443".to_owned()], ..Quota::default() };
        let expected = r#"{"egress":{"allow":null,"deny":null,"ports":["443"]}}"#;
        assert_eq!(serde_json::to_string(&ports.members().unwrap()).unwrap(), expected);
        let whole = r#"{"defaults":{},"quota":{"concurrency":3},"plugin_signers":[]}"#;
        assert_eq!(serde_json::to_string(&settings.whole(&none).unwrap()).unwrap(), whole);
    }
}
