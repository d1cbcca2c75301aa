//! Views of a group and its policies that several routes answer with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use carillon_engine::observers::Report;
use carillon_policy::binding::{Changes, LimitsDoc, Pin, QuotaDoc};

/// A plugin in a role.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UseDoc {
    /// `name`, or `name@version` for one of the tenant's own. Without it the inherited one is meant, with another config.
    pub(super) plugin: Option<String>,
    /// In the form of the plugin's own schema.
    #[schema(value_type = Option<Value>)]
    pub(super) config: Option<Value>,
    /// The keys that it may use; for `sign` only.
    pub(super) keys: Option<Vec<String>>,
    /// The group of the jobs that it asks for, without which it may ask for none; for `observe` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jobs: Option<String>,
}

/// What a group has of its own; the rest comes from its tenant and from the server.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct GroupDoc {
    /// In order.
    pub(super) encode: Option<Vec<UseDoc>>,
    /// Null takes an inherited signer away.
    pub(super) sign: Option<UseDoc>,
    /// Headers of every request whose values are keys of the kind `header`: header → the key's name.
    pub(super) auth_headers: Option<BTreeMap<String, String>>,
    pub(super) judge: Option<UseDoc>,
    pub(super) retry: Option<UseDoc>,
    /// Watches what happens to the group's jobs; null takes an inherited one away.
    pub(super) observe: Option<UseDoc>,
    pub(super) limits: Option<LimitsDoc>,
    /// The group that copies of dead letters go to, for consumers to pull.
    pub(super) dead_letters: Option<String>,
    /// Which version of the policy a job follows: the one in force (`group`, the default), or the one that was when it was accepted (`job`).
    pub(super) pin: Option<Pin>,
    /// Whether the version before is put in force again when a policy of the present one is quarantined: true by default.
    pub(super) rollback_on_quarantine: Option<bool>,
}

/// A group as it is shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct GroupView {
    /// Its name.
    pub(super) name: String,
    /// One more with each change.
    pub(super) version: i64,
    /// The version of its policy that is in force.
    pub(super) binding: i64,
    /// Whether its jobs wait.
    pub(super) paused: bool,
    /// Time of its creation.
    #[schema(format = DateTime)]
    pub(super) created_at: String,
    /// Time of its last change.
    #[schema(format = DateTime)]
    pub(super) updated_at: String,
    /// What it has of its own; with `?effective=true`, what is in force.
    #[serde(flatten)]
    #[schema(value_type = GroupDoc)]
    pub(super) policy: Value,
    /// Which layer each value comes from (`server`, `tenant`, `preset`, `group`), by JSON pointer; with `?effective=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sources: Option<BTreeMap<String, String>>,
    /// What all groups of its tenant may use together, next to its own limits; with `?effective=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quota: Option<QuotaDoc>,
    /// Why nothing of this group runs, if something that its policy refers to has gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broken: Option<String>,
    /// The policies that failed too often and are not called for a while, on the node that answers.
    pub(super) quarantined: Vec<QuarantineView>,
    /// What should be looked at, such as plugins that are deprecated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) warnings: Vec<String>,
    /// The version that some of its jobs follow, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) canary: Option<CanaryView>,
    /// What its observer has done since the server started, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observer: Option<ObserverView>,
}

/// What an observer has done since the server started.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ObserverView {
    /// Events that it was shown.
    pub(super) shown: u64,
    /// Events of calls that ended in a fault.
    pub(super) failed: u64,
    /// Events that it was not shown: too many waited, or it is quarantined or cannot be loaded.
    pub(super) dropped: u64,
    /// Jobs that it asked for, and that were made.
    pub(super) jobs: u64,
    /// The code of its newest fault.
    pub(super) last_fault: Option<String>,
    /// The newest lines that it logged, oldest first.
    pub(super) log: Vec<String>,
}

/// A group after a change, and what the change did to what is in force.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ChangedGroupView {
    #[serde(flatten)]
    pub(super) group: GroupView,
    #[serde(flatten)]
    pub(super) changes: Changes,
}

/// A policy that is not called for a while.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct QuarantineView {
    /// The version of the group's policy that it is a part of: the one in force, the one that some of the jobs follow, or the shadow's.
    pub(super) version: i64,
    /// Whether that runs in shadow: then no delivery goes without it.
    pub(super) shadow: bool,
    pub(super) role: String,
    pub(super) plugin: String,
    pub(super) digest: String,
    /// Time of the fault that began the quarantine.
    #[schema(format = DateTime)]
    pub(super) since: String,
    /// End of the quarantine, from which the policy is called again.
    #[schema(format = DateTime)]
    pub(super) until: String,
    /// The code of that fault.
    pub(super) fault: &'static str,
}

/// A version that some of a group's jobs follow, and how it does: on this node, since it began or the server started.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct CanaryView {
    /// The version.
    pub(super) version: i64,
    /// How many of a hundred jobs follow it.
    pub(super) percent: u32,
    /// Time from which jobs follow it.
    #[schema(format = DateTime)]
    pub(super) since: String,
    /// It is taken back when a larger share of its attempts than this has a fault.
    pub(super) max_faults: f64,
    /// It is taken back when the share of its attempts that are no success exceeds that of the version in force by more than this.
    pub(super) max_differences: f64,
    /// How many attempts of each version it takes to say so.
    pub(super) min_attempts: u32,
    /// Its attempts.
    pub(super) canary: ArmView,
    /// Those of the version in force.
    pub(super) active: ArmView,
}

/// What came of a version's attempts.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ArmView {
    /// Number of attempts.
    pub(super) attempts: u64,
    /// Those with a fault of a policy.
    pub(super) faults: u64,
    /// Those that were sent, and were no success.
    pub(super) failures: u64,
}

impl From<Report> for ObserverView {
    fn from(report: Report) -> Self {
        let Report { shown, failed, dropped, jobs, last_fault, log } = report;
        Self { shown, failed, dropped, jobs, last_fault, log: log.into() }
    }
}
