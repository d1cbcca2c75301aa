//! Views of a group and its policies that several routes answer with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use carillon_catalog::By;
use carillon_core::error_code::ErrorCode;
use carillon_engine::observers::Report;
use carillon_policy::binding::{Changes, LimitsInput, Pin, QuotaInput};

/// Author of a change.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ByView {
    /// Id of the token; null for a part of the server, and for what versions before the audit log have stored.
    token: Option<String>,
    /// Name of the token when it was used, or of the part of the server: a label that proves nothing.
    name: String,
}

impl From<By> for ByView {
    fn from(By { token, name }: By) -> Self {
        Self { token, name }
    }
}

/// Use of a plugin in a role.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UseInput {
    /// Name of the plugin: `name`, or `name@version` for one of the tenant's own. Default: the inherited plugin, with this config.
    pub(super) plugin: Option<String>,
    /// Config, as the plugin's schema describes it.
    #[schema(value_type = Option<Value>)]
    pub(super) config: Option<Value>,
    /// Names of the keys that the plugin may use; for `sign` only.
    pub(super) keys: Option<Vec<String>>,
    /// Name of the group for the jobs that the plugin requests, for `observe` only. Default: it may not request jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jobs: Option<String>,
}

/// TLS to receivers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TlsInput {
    /// Name of a key of the kind `tls-client`, whose certificate is shown to receivers that ask for one. Null removes an inherited one.
    pub(super) client_key: Option<String>,
}

/// Settings of a group's own. The rest is inherited from its tenant and the server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct GroupInput {
    /// Encoders, in the order of their calls.
    pub(super) encode: Option<Vec<UseInput>>,
    /// Signer; null removes an inherited one.
    pub(super) sign: Option<UseInput>,
    /// Headers of every request whose values are keys of the kind `header`: name of the header → name of the key.
    pub(super) auth_headers: Option<BTreeMap<String, String>>,
    /// TLS to receivers.
    pub(super) tls: Option<TlsInput>,
    /// Judge.
    pub(super) judge: Option<UseInput>,
    /// Retry policy.
    pub(super) retry: Option<UseInput>,
    /// Observer of the group's events; null removes an inherited one.
    pub(super) observe: Option<UseInput>,
    /// Limits on concurrency, rate and time.
    pub(super) limits: Option<LimitsInput>,
    /// Name of the group to which copies of dead letters go, for consumers to pull.
    pub(super) dead_letters: Option<String>,
    /// Version of the policy that a job follows: the one in force (`group`, the default), or the one that was in force when it was accepted
    /// (`job`).
    pub(super) pin: Option<Pin>,
    /// Whether the previous version is put in force again when a policy of the present one is quarantined. Default: true.
    pub(super) rollback_on_quarantine: Option<bool>,
}

/// Group, as the API returns it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct GroupView {
    /// Name of the group.
    pub(super) name: String,
    /// Version of the group, which rises with each change.
    pub(super) version: i64,
    /// Version of its policy that is in force.
    pub(super) binding: i64,
    /// Whether the group is paused.
    pub(super) paused: bool,
    /// Time of its creation.
    #[schema(format = DateTime)]
    pub(super) created_at: String,
    /// Time of its last change.
    #[schema(format = DateTime)]
    pub(super) updated_at: String,
    /// Settings of its own; with `?effective=true`, the merged settings that are in force.
    #[serde(flatten)]
    #[schema(value_type = GroupInput)]
    pub(super) policy: Value,
    /// Layer that each value comes from (`server`, `tenant`, `preset`, `group`), by JSON pointer; with `?effective=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sources: Option<BTreeMap<String, String>>,
    /// Limits on what all groups of its tenant use together, besides its own; with `?effective=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quota: Option<QuotaInput>,
    /// Reason why no job of this group runs, if something that its policy refers to is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broken: Option<String>,
    /// Quarantined policies of the group, on the node that responds.
    pub(super) quarantined: Vec<QuarantineView>,
    /// Warnings, such as plugins that are deprecated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
    /// Canary: version that some of its jobs follow, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) canary: Option<CanaryView>,
    /// Activity of its observer since the server started, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observer: Option<ObserverView>,
}

/// Activity of an observer since the server started.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ObserverView {
    /// Number of events that it was shown.
    pub(super) shown: u64,
    /// Number of events in calls that ended in a fault.
    pub(super) failed: u64,
    /// Number of events that it was not shown, because too many were waiting, or because it was quarantined or could not be loaded.
    pub(super) dropped: u64,
    /// Number of jobs that it requested and that were made.
    pub(super) jobs: u64,
    /// Code of its newest fault.
    #[schema(value_type = Option<String>)]
    pub(super) last_fault: Option<ErrorCode>,
    /// Newest lines of its log, oldest first.
    pub(super) log: Vec<String>,
}

/// Group after a change, with the names of the settings that changed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ChangedGroupView {
    #[serde(flatten)]
    pub(super) group: GroupView,
    #[serde(flatten)]
    pub(super) changes: Changes,
}

/// Quarantined policy.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct QuarantineView {
    /// Version of the group's policy that it is a part of: the one in force, the canary or the shadow.
    pub(super) version: i64,
    /// Whether that version is the shadow; then deliveries do not need the policy.
    pub(super) shadow: bool,
    /// Role that the plugin plays.
    pub(super) role: String,
    /// Name of the plugin.
    pub(super) plugin: String,
    /// SHA-256 of the component.
    pub(super) digest: String,
    /// Time of the fault that began the quarantine.
    #[schema(format = DateTime)]
    pub(super) since: String,
    /// End of the quarantine, from which the policy is called again.
    #[schema(format = DateTime)]
    pub(super) until: String,
    /// Code of that fault.
    pub(super) fault: &'static str,
}

/// Canary of a group, with its results on this node since it began or the server started.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct CanaryView {
    /// Number of the version.
    pub(super) version: i64,
    /// Percentage of the jobs that follow it.
    pub(super) percent: u32,
    /// Time from which jobs follow it.
    #[schema(format = DateTime)]
    pub(super) since: String,
    /// Largest share of its attempts with a fault, 0 to 1. It is reverted when its share is larger.
    pub(super) max_faults: f64,
    /// Largest difference, 0 to 1, between its share of attempts without success and that of the version in force. It is reverted when the
    /// difference is larger.
    pub(super) max_differences: f64,
    /// Number of attempts of each version before they are compared.
    pub(super) min_attempts: u32,
    /// Results of its attempts.
    pub(super) canary: ArmView,
    /// Results of the version in force.
    pub(super) active: ArmView,
}

/// Results of a version's attempts.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ArmView {
    /// Number of attempts.
    pub(super) attempts: u64,
    /// Number of attempts with a fault of a policy.
    pub(super) faults: u64,
    /// Number of attempts that were sent without success.
    pub(super) failures: u64,
}

impl From<Report> for ObserverView {
    fn from(report: Report) -> Self {
        let Report { shown, failed, dropped, jobs, last_fault, log } = report;
        Self { shown, failed, dropped, jobs, last_fault, log: log.into() }
    }
}
