//! A job that is made when another one ends.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Admission, GroupId, Job, JobId, NewJob, Priority, Spec, new_seed};
use crate::clock::{Clock, UnixMs};

/// A job that is made when another one ends. Times count from that moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FollowUp {
    /// In which group, of the same tenant.
    pub group: GroupId,
    /// See [`NewJob`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long after the end of the other job it is due.
    #[serde(default)]
    pub delay: Duration,
    /// How long it may be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Duration>,
    /// See [`NewJob`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delay: Option<Duration>,
    /// See [`NewJob`].
    #[serde(default)]
    pub priority: Priority,
    /// See [`NewJob`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_key: Option<String>,
    /// See [`NewJob`].
    pub spec: Spec,
    /// See [`NewJob`].
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub body: Bytes,
}

impl FollowUp {
    /// The job that follows `parent`, which ends at `now`.
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
