//! Filter of jobs, in lists and in changes of many jobs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::ApiLimits;
use super::super::auth::Access;
use super::super::error::Problem;
use carillon_core::clock::{UnixMs, rfc3339};
use carillon_core::job::GroupId;
use carillon_core::json::unique;
use carillon_core::limits::json_len;
use carillon_store::JobFilter;

/// A time in RFC 3339.
pub(super) fn instant(pointer: &str, text: Option<String>) -> Result<Option<UnixMs>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let parsed = rfc3339::parse(&text).map_err(|error| {
        let detail = format!("`{}` is not a time such as `2026-11-20T10:00:00Z`: {error}", text.escape_debug());
        Problem::invalid(pointer, detail)
    });
    parsed.map(Some)
}

/// Filter of jobs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterInput {
    /// Only jobs in this state.
    pub state: Option<carillon_core::job::State>,
    /// Only jobs with exactly this name.
    pub name: Option<String>,
    /// Only jobs whose name begins with this text.
    pub name_prefix: Option<String>,
    /// Only jobs that were accepted at this time (RFC 3339) or later.
    pub created_from: Option<String>,
    /// Only jobs that were accepted before this time (RFC 3339).
    pub created_before: Option<String>,
    /// Only jobs that are, or last were, due at this time (RFC 3339) or later.
    pub due_from: Option<String>,
    /// Only jobs that are, or last were, due before this time (RFC 3339).
    pub due_before: Option<String>,
    /// Only jobs with exactly this URL.
    pub url: Option<String>,
    /// Only jobs whose URL begins with this text.
    pub url_prefix: Option<String>,
    /// Only jobs with exactly this order key.
    pub order_key: Option<String>,
    /// Only jobs with all of these labels. `a.b` means the label `b` in the namespace `a`.
    #[serde(deserialize_with = "unique::map")]
    pub metadata: BTreeMap<String, String>,
}

impl FilterInput {
    /// The filter.
    pub(super) fn into_filter(self, access: &Access, group: GroupId, limits: &ApiLimits) -> Result<JobFilter, Problem> {
        if self.metadata.len() > limits.label_filters {
            let most = limits.label_filters;
            let detail = format!("`metadata` must have at most {most} labels (`limits.label_filters`)");
            return Err(Problem::invalid("/metadata", detail));
        }
        limits.parts.document.check("filter", "", json_len(&self)).map_err(|exceeded| Problem::exceeded(&exceeded))?;
        if let Some(label) = self.metadata.keys().find(|key| key.contains(['"', '\\', '\0'])) {
            let detail =
                format!("the name of a label must have no quotes, backslashes or zeros: `{}`", label.escape_debug());
            return Err(Problem::invalid("/metadata", detail));
        }
        Ok(JobFilter {
            state: self.state,
            name: self.name,
            name_prefix: self.name_prefix,
            created_from: instant("/created_from", self.created_from)?,
            created_before: instant("/created_before", self.created_before)?,
            due_from: instant("/due_from", self.due_from)?,
            due_before: instant("/due_before", self.due_before)?,
            url: self.url,
            url_prefix: self.url_prefix,
            order_key: self.order_key,
            metadata: self.metadata,
            ..JobFilter::all(access.tenant.id, group)
        })
    }
}
