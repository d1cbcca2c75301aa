//! Follow-up jobs: jobs that are made when another one succeeds or fails.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Admission, GroupId, Job, JobId, NewJob, Priority, Spec, new_seed};
use crate::clock::{Clock, UnixMs};

/// Template of a follow-up job.
///
/// Its times count from the end of the parent job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowUp {
    /// Group of the job; it belongs to the parent's tenant.
    pub group: GroupId,
    /// Name of the job; need not be unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Time from the parent's end until the job is due.
    #[serde(default)]
    pub delay: Duration,
    /// Time from the parent's end until the job's deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// Longest time after the due time at which an attempt may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Duration>,
    /// Order among the group's due jobs.
    #[serde(default)]
    pub priority: Priority,
    /// Order key: the group's jobs of one key are tried one at a time, in the order of their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_key: Option<String>,
    /// Request and settings.
    pub spec: Spec,
    /// The payload.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub body: Bytes,
}

impl FollowUp {
    /// Returns the job that follows `parent`, which ends at `now`.
    #[must_use]
    pub fn job(&self, parent: &Job, now: UnixMs, clock: &dyn Clock) -> NewJob {
        NewJob {
            id: JobId::new(clock),
            tenant: parent.tenant,
            group: self.group,
            name: self.name.clone(),
            run_at: now.plus(self.delay),
            created_at: now,
            deadline: self.ttl.map(|ttl| now.plus(ttl)),
            max_delay: self.max_delay,
            priority: self.priority,
            order_key: self.order_key.clone(),
            admission: Admission::Always,
            seed: new_seed(clock),
            spec: Spec { parent: Some(parent.id), ..self.spec.clone() },
            body: self.body.clone(),
        }
    }
}

fn to_base64<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(body))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
}
