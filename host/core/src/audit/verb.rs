//! The verbs of the audit log.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// What was done, or was refused: `key.put`.
///
/// A newer version of the program may have stored others than the constants here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Verb(Cow<'static, str>);

impl Verb {
    /// A key was made, or given a new version.
    pub const KEY_PUT: Self = Self(Cow::Borrowed("key.put"));
    /// A key was granted to other groups.
    pub const KEY_GRANT: Self = Self(Cow::Borrowed("key.grant"));
    /// A key was removed.
    pub const KEY_DELETE: Self = Self(Cow::Borrowed("key.delete"));
    /// A version of a key was removed.
    pub const KEY_DELETE_VERSION: Self = Self(Cow::Borrowed("key.delete_version"));
    /// A token was made.
    pub const TOKEN_CREATE: Self = Self(Cow::Borrowed("token.create"));
    /// A token was given another secret.
    pub const TOKEN_ROTATE: Self = Self(Cow::Borrowed("token.rotate"));
    /// A token was revoked.
    pub const TOKEN_REVOKE: Self = Self(Cow::Borrowed("token.revoke"));
    /// A tenant was made or changed.
    pub const TENANT_PUT: Self = Self(Cow::Borrowed("tenant.put"));
    /// A tenant was suspended.
    pub const TENANT_SUSPEND: Self = Self(Cow::Borrowed("tenant.suspend"));
    /// A suspended tenant was resumed.
    pub const TENANT_RESUME: Self = Self(Cow::Borrowed("tenant.resume"));
    /// A tenant was removed with all that it owned, which has no entries of its own.
    pub const TENANT_DELETE: Self = Self(Cow::Borrowed("tenant.delete"));
    /// A group was made or changed.
    pub const GROUP_PUT: Self = Self(Cow::Borrowed("group.put"));
    /// A group was removed.
    pub const GROUP_DELETE: Self = Self(Cow::Borrowed("group.delete"));
    /// A group was paused.
    pub const GROUP_PAUSE: Self = Self(Cow::Borrowed("group.pause"));
    /// A group was resumed.
    pub const GROUP_RESUME: Self = Self(Cow::Borrowed("group.resume"));
    /// A version of a plugin was uploaded.
    pub const PLUGIN_PUT: Self = Self(Cow::Borrowed("plugin.put"));
    /// A version of a plugin was marked as deprecated, or the mark was removed.
    pub const PLUGIN_DEPRECATE: Self = Self(Cow::Borrowed("plugin.deprecate"));
    /// A version of a plugin was shared with other tenants than before.
    pub const PLUGIN_SHARE: Self = Self(Cow::Borrowed("plugin.share"));
    /// A version of a plugin was removed.
    pub const PLUGIN_DELETE: Self = Self(Cow::Borrowed("plugin.delete"));
    /// A version of a group's policy was made.
    pub const POLICY_PROPOSE: Self = Self(Cow::Borrowed("policy.propose"));
    /// A version was put in force.
    pub const POLICY_PROMOTE: Self = Self(Cow::Borrowed("policy.promote"));
    /// A version became a canary.
    pub const POLICY_CANARY: Self = Self(Cow::Borrowed("policy.canary"));
    /// The previous version was put in force again, or a canary was ended.
    pub const POLICY_ROLLBACK: Self = Self(Cow::Borrowed("policy.rollback"));
    /// The quarantines of a group's policies were ended.
    pub const POLICY_UNQUARANTINE: Self = Self(Cow::Borrowed("policy.unquarantine"));
    /// A version became a group's shadow.
    pub const POLICY_SHADOW: Self = Self(Cow::Borrowed("policy.shadow"));
    /// A group's shadow was ended.
    pub const POLICY_UNSHADOW: Self = Self(Cow::Borrowed("policy.unshadow"));
    /// An attempt was simulated.
    pub const POLICY_SIMULATE: Self = Self(Cow::Borrowed("policy.simulate"));
    /// A version was compared with recorded attempts.
    pub const POLICY_BACKTEST: Self = Self(Cow::Borrowed("policy.backtest"));
    /// A schedule was made or changed.
    pub const SCHEDULE_PUT: Self = Self(Cow::Borrowed("schedule.put"));
    /// A schedule was removed.
    pub const SCHEDULE_DELETE: Self = Self(Cow::Borrowed("schedule.delete"));
    /// A schedule was paused.
    pub const SCHEDULE_PAUSE: Self = Self(Cow::Borrowed("schedule.pause"));
    /// A schedule was resumed.
    pub const SCHEDULE_RESUME: Self = Self(Cow::Borrowed("schedule.resume"));
    /// A run of a schedule was requested.
    pub const SCHEDULE_RUN: Self = Self(Cow::Borrowed("schedule.run"));
    /// Runs of a schedule in the past were requested.
    pub const SCHEDULE_BACKFILL: Self = Self(Cow::Borrowed("schedule.backfill"));
    /// Many jobs were cancelled.
    pub const BULK_CANCEL: Self = Self(Cow::Borrowed("bulk.cancel"));
    /// Many jobs were moved in time.
    pub const BULK_RESCHEDULE: Self = Self(Cow::Borrowed("bulk.reschedule"));
    /// Many ended jobs were tried again.
    pub const BULK_REDRIVE: Self = Self(Cow::Borrowed("bulk.redrive"));
    /// Many ended jobs were removed.
    pub const BULK_PURGE: Self = Self(Cow::Borrowed("bulk.purge"));
    /// Jobs were made.
    pub const JOB_CREATE: Self = Self(Cow::Borrowed("job.create"));
    /// A job was changed.
    pub const JOB_EDIT: Self = Self(Cow::Borrowed("job.edit"));
    /// A job was cancelled or removed.
    pub const JOB_CANCEL: Self = Self(Cow::Borrowed("job.cancel"));
    /// A job was made due at once.
    pub const JOB_RUN: Self = Self(Cow::Borrowed("job.run"));
    /// An ended job was tried again.
    pub const JOB_RETRY: Self = Self(Cow::Borrowed("job.retry"));
    /// A job was moved in time.
    pub const JOB_RESCHEDULE: Self = Self(Cow::Borrowed("job.reschedule"));
    /// A job was made from another one.
    pub const JOB_COPY: Self = Self(Cow::Borrowed("job.copy"));
    /// An attempt was replayed.
    pub const JOB_REPLAY: Self = Self(Cow::Borrowed("job.replay"));
    /// The payload of a job was read.
    pub const JOB_READ_PAYLOAD: Self = Self(Cow::Borrowed("job.read_payload"));
    /// The request of an attempt was read.
    pub const JOB_READ_REQUEST: Self = Self(Cow::Borrowed("job.read_request"));
    /// Jobs were leased.
    pub const LEASE_CREATE: Self = Self(Cow::Borrowed("lease.create"));
    /// A lease was extended.
    pub const LEASE_EXTEND: Self = Self(Cow::Borrowed("lease.extend"));
    /// A leased job was reported as done.
    pub const LEASE_COMPLETE: Self = Self(Cow::Borrowed("lease.complete"));
    /// A leased job was reported as failed.
    pub const LEASE_FAIL: Self = Self(Cow::Borrowed("lease.fail"));
    /// A leased job was given back.
    pub const LEASE_RELEASE: Self = Self(Cow::Borrowed("lease.release"));
    /// A request reached the API of another scheduler.
    pub const MOUNT_REQUEST: Self = Self(Cow::Borrowed("mount.request"));
    /// A request without a verb of its own was refused.
    pub const REQUEST: Self = Self(Cow::Borrowed("request"));

    /// All verbs of this version.
    pub const ALL: [Self; 55] = [
        Self::KEY_PUT,
        Self::KEY_GRANT,
        Self::KEY_DELETE,
        Self::KEY_DELETE_VERSION,
        Self::TOKEN_CREATE,
        Self::TOKEN_ROTATE,
        Self::TOKEN_REVOKE,
        Self::TENANT_PUT,
        Self::TENANT_SUSPEND,
        Self::TENANT_RESUME,
        Self::TENANT_DELETE,
        Self::GROUP_PUT,
        Self::GROUP_DELETE,
        Self::GROUP_PAUSE,
        Self::GROUP_RESUME,
        Self::PLUGIN_PUT,
        Self::PLUGIN_DEPRECATE,
        Self::PLUGIN_SHARE,
        Self::PLUGIN_DELETE,
        Self::POLICY_PROPOSE,
        Self::POLICY_PROMOTE,
        Self::POLICY_CANARY,
        Self::POLICY_ROLLBACK,
        Self::POLICY_UNQUARANTINE,
        Self::POLICY_SHADOW,
        Self::POLICY_UNSHADOW,
        Self::POLICY_SIMULATE,
        Self::POLICY_BACKTEST,
        Self::SCHEDULE_PUT,
        Self::SCHEDULE_DELETE,
        Self::SCHEDULE_PAUSE,
        Self::SCHEDULE_RESUME,
        Self::SCHEDULE_RUN,
        Self::SCHEDULE_BACKFILL,
        Self::BULK_CANCEL,
        Self::BULK_RESCHEDULE,
        Self::BULK_REDRIVE,
        Self::BULK_PURGE,
        Self::JOB_CREATE,
        Self::JOB_EDIT,
        Self::JOB_CANCEL,
        Self::JOB_RUN,
        Self::JOB_RETRY,
        Self::JOB_RESCHEDULE,
        Self::JOB_COPY,
        Self::JOB_REPLAY,
        Self::JOB_READ_PAYLOAD,
        Self::JOB_READ_REQUEST,
        Self::LEASE_CREATE,
        Self::LEASE_EXTEND,
        Self::LEASE_COMPLETE,
        Self::LEASE_FAIL,
        Self::LEASE_RELEASE,
        Self::MOUNT_REQUEST,
        Self::REQUEST,
    ];

    /// Returns the verb's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_page_names_every_verb_and_no_other() {
        let page = include_str!("../../../../docs/reference/audit.md");
        let (_, verbs) = page.split_once("## Verbs").unwrap();
        let rows = verbs.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        let mut named: Vec<&str> = rows.map(|(verb, _)| verb).collect();
        named.sort_unstable();
        let mut verbs = Verb::ALL.each_ref().map(Verb::as_str);
        verbs.sort_unstable();
        assert_eq!(named, verbs);
    }
}
