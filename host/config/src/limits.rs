//! `[limits]` and `[metrics]`: bounds of what tenants may ask for, and the place of the metrics.

use std::net::SocketAddr;

use serde::Deserialize;

use super::checks::Checks;
use super::{Period, Size, values};
use carillon_core::limits::{self, ByteLimit, RequestLimits};

/// `[limits]`: bounds of what a tenant may ask for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Shortest delay between a failed attempt and the next one.
    pub retry_floor: Period,
    /// Largest number of attempts of one job between redrives.
    pub attempts: u32,
    /// Part of each pool that one tenant may hold while several tenants exist.
    pub tenant_share: f64,
    /// Largest size of the bodies of all requests that are received and processed.
    pub bodies: Size,
    /// Largest job, without its payload and the jobs that follow it.
    pub job: Size,
    /// Largest value of one header.
    pub header: Size,
    /// Largest size of all headers together.
    pub headers: Size,
    /// Largest overrides of a job.
    #[serde(rename = "override")]
    pub overrides: Size,
    /// Largest document of a tenant, a group, a version of a policy or a schedule; largest filter, list of signers or of grants.
    pub document: Size,
    /// Longest name or key.
    pub name: Size,
    /// Longest reason or summary.
    pub note: Size,
    /// Largest value of a key's version.
    pub secret: Size,
    /// Largest section of a component that the server itself reads.
    pub embedded: Size,
    /// Longest query string.
    pub query: Size,
    /// Largest number of labels in one filter.
    pub label_filters: usize,
    /// Largest response of a list, a page, or a lease.
    pub answer: Size,
    /// Largest number of steps of the config checks of one request.
    pub check_steps: u64,
    /// Time limit of the config checks of one request.
    pub check_time: Period,
    /// Defaults of the tenants' quotas.
    pub tenant: TenantLimits,
}

/// `[limits.tenant]`: defaults of the tenants' quotas.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantLimits {
    /// Largest number of unfinished jobs.
    pub jobs: u64,
    /// Largest number of schedules.
    pub schedules: u64,
    /// Largest number of groups.
    pub groups: u64,
    /// Largest number of keys.
    pub keys: u64,
    /// Largest number of tokens.
    pub tokens: u64,
    /// Largest number of versions of plugins.
    pub plugins: u64,
    /// Largest size of the documents of groups, versions of policies and schedules together.
    pub config_bytes: Size,
    /// Largest number of changes of many jobs that are under way.
    pub bulks: u64,
    /// Largest time of compilation of uploads within an hour, in seconds, on each node.
    pub compile_seconds: u64,
    /// Largest size of the payloads, documents and attempts of all jobs together.
    pub stored_bytes: Size,
}

/// Longest name that an index of the databases takes, in bytes.
const MAX_NAME: usize = 255;

impl Limits {
    /// Returns the bounds of the parts of a request.
    #[must_use]
    pub fn of_requests(&self) -> RequestLimits {
        let limit = |size: Size, setting| ByteLimit { bytes: size.get(), setting };
        RequestLimits {
            job: limit(self.job, "limits.job"),
            header: limit(self.header, "limits.header"),
            headers: limit(self.headers, "limits.headers"),
            overrides: limit(self.overrides, "limits.override"),
            document: limit(self.document, "limits.document"),
            name: limit(self.name, "limits.name"),
            note: limit(self.note, "limits.note"),
            secret: limit(self.secret, "limits.secret"),
        }
    }

    /// Returns the defaults of the tenants' quotas.
    #[must_use]
    pub fn of_tenants(&self) -> limits::TenantLimits {
        let tenant = &self.tenant;
        limits::TenantLimits {
            jobs: tenant.jobs,
            schedules: tenant.schedules,
            groups: tenant.groups,
            keys: tenant.keys,
            tokens: tenant.tokens,
            plugins: tenant.plugins,
            config_bytes: u64::try_from(tenant.config_bytes.get()).unwrap_or(u64::MAX),
            bulks: tenant.bulks,
            compile_seconds: tenant.compile_seconds,
            stored_bytes: u64::try_from(tenant.stored_bytes.get()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn check(&self, checks: &mut Checks) {
        checks.period("limits.retry_floor", self.retry_floor, std::time::Duration::ZERO);
        checks.between("limits.attempts", self.attempts, 1, u32::MAX);
        checks.between("limits.tenant_share", self.tenant_share, 0.01, 1.0);
        checks.size("limits.job", self.job, 1024);
        checks.size("limits.header", self.header, 64);
        checks.size("limits.headers", self.headers, 64);
        checks.size("limits.override", self.overrides, 64);
        checks.size("limits.document", self.document, 1024);
        checks.size("limits.name", self.name, 16);
        checks.at_most("limits.name", self.name, "the longest name that is stored", Size::from(MAX_NAME));
        checks.size("limits.note", self.note, 16);
        checks.size("limits.secret", self.secret, 64);
        checks.size("limits.embedded", self.embedded, 1024);
        checks.size("limits.query", self.query, 64);
        checks.size("limits.answer", self.answer, 1024);
        checks.between("limits.check_steps", self.check_steps, 1000, u64::MAX);
        checks.period("limits.check_time", self.check_time, std::time::Duration::from_millis(1));
    }
}

/// `[metrics]`: place of the metrics.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Address that serves the metrics in place of `server.listen`.
    #[serde(deserialize_with = "values::address_unless_empty")]
    pub listen: Option<SocketAddr>,
}
