//! Limits of a group and quota of a tenant: how they are written, and their parsed form.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Invalid;
use super::egress_quota::{EgressInput, EgressQuota};
use carillon_core::json::read_value;

/// Maximum number of redirects that a group can follow.
const MAX_REDIRECTS: u32 = 10;

/// Maximum weight.
const MAX_WEIGHT: u32 = 100;

/// Parsed limits of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupLimits {
    /// Maximum number of attempts that run at once.
    pub concurrency: u32,
    /// Maximum number of attempts to one receiver at once.
    pub host_concurrency: Option<u32>,
    /// Rate at which attempts start.
    pub rate: Option<Rate>,
    /// Maximum duration of one request, body included.
    pub timeout: Duration,
    /// Maximum age of a job, counted from its acceptance, at which it is still tried.
    pub ttl: Option<Duration>,
    /// Maximum delay after its due time at which an attempt may still start.
    pub max_delay: Option<Duration>,
    /// Redirects that a delivery follows.
    pub redirects: Redirects,
    /// Weight of the group in the division of claims, relative to the tenant's other groups.
    pub weight: u32,
    /// Bytes of a response's body that are recorded; `None` is the server's default.
    pub recorded_body: Option<usize>,
}

/// Redirects that a delivery follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redirects {
    /// Maximum number of redirects of one delivery.
    pub most: usize,
    /// Whether a redirect may lead from `https` to `http`.
    pub to_http: bool,
}

/// A number of attempts in a period, such as `100/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Number of attempts.
    pub count: NonZeroU32,
    /// Length of the period.
    pub period: Duration,
    /// Number of attempts that may start at once after a pause.
    pub burst: NonZeroU32,
}

/// Limits of a group, as they are written.
#[derive(Clone, Debug, Default, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsInput {
    /// Largest number of attempts of the group that run at once.
    pub concurrency: Option<u32>,
    /// Largest number of attempts of the group to one receiver (scheme, host, port) at once. Default: the group's `concurrency`.
    pub host_concurrency: Option<u32>,
    /// Rate at which attempts start: `100/s`, `600/min`, `5000/h`.
    pub rate: Option<String>,
    /// Number of attempts that may start at once after a pause; requires `rate`. Default: the count of the rate.
    pub burst: Option<u32>,
    /// Time limit of one request, such as `10s`.
    pub timeout: Option<String>,
    /// Time from the acceptance of a job until it expires, such as `1h`. Retries do not restart it.
    pub ttl: Option<String>,
    /// Largest delay after its due time at which an attempt may still start, such as `10m`.
    pub max_delay: Option<String>,
    /// Largest number of redirects that one delivery follows: 0 to 10. Default: 0, where the redirect itself is the response that is judged.
    pub redirects: Option<u32>,
    /// Whether a redirect may lead from `https` to `http`, where everybody on the way can read the request. Default: false, which makes such a
    /// redirect a failure.
    pub redirects_to_http: Option<bool>,
    /// Share of the attempts that start, relative to the tenant's other groups with due jobs: 1 to 100. Default: 1.
    pub weight: Option<u32>,
    /// Number of bytes of a response's body that are kept with the attempt: 0 for none, at most as many as the judge is shown. A replay or a
    /// backtest cannot judge the bytes that are not kept.
    pub recorded_body: Option<usize>,
}

/// Bounds on what all groups of a tenant use together, and on what the tenant stores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quota {
    /// The quota as it is written.
    pub doc: QuotaInput,
    /// Maximum number of attempts that run at once.
    pub concurrency: Option<u32>,
    /// Rate at which attempts start.
    pub rate: Option<Rate>,
    /// Networks and ports to which requests may go, of those that the server allows.
    pub egress: Option<Arc<EgressQuota>>,
    weight: Option<u32>,
}

/// Quota of a tenant, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuotaInput {
    /// Largest number of attempts of all groups that run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Rate at which attempts of all groups start: `100/s`, `600/min`, `5000/h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    /// Number of attempts that may start at once after a pause; requires `rate`. Default: the count of the rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Share of the attempts that start, relative to other tenants with due jobs: 1 to 100. Default: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Largest number of versions of its own plugins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugins: Option<usize>,
    /// Largest size of their components together, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin_bytes: Option<usize>,
    /// Largest number of unfinished jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u64>,
    /// Largest number of schedules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedules: Option<u64>,
    /// Largest number of groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<u64>,
    /// Largest number of keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// Largest number of tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Largest size of the documents of all groups, versions of policies and schedules together, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_bytes: Option<u64>,
    /// Largest number of changes of many jobs that are under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulks: Option<u64>,
    /// Largest time of compilation of its uploads within an hour, in seconds, on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compile_seconds: Option<u64>,
    /// Largest size of the payloads, documents and attempts of all stored jobs together, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Networks and ports to which requests may go. It narrows what the server allows (`egress`), and allows nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressInput>,
}

impl Quota {
    /// Parses a quota.
    ///
    /// # Errors
    /// Returns [`Invalid`] with a pointer to the offending member.
    pub fn parse(doc: QuotaInput) -> Result<Self, Invalid> {
        let concurrency = doc.concurrency.map(|count| at_least_1("/concurrency", count)).transpose()?;
        let rate = rate(doc.rate.as_deref(), doc.burst)?;
        let weight = doc.weight.map(|weight| parse_weight("/weight", weight)).transpose()?;
        let egress = doc.egress.as_ref().map(EgressQuota::parse).transpose();
        let egress = egress.map_err(|error| error.within("/egress"))?.map(Arc::new);
        Ok(Self { concurrency: concurrency.map(NonZeroU32::get), rate, egress, weight, doc })
    }

    /// Returns the tenant's weight in the division of claims, relative to other tenants.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight.unwrap_or(1)
    }

    /// Returns whether the quota bounds nothing, so that only the groups' own limits apply.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        self.concurrency.is_none() && self.rate.is_none()
    }
}

impl GroupLimits {
    pub(super) fn parse(value: &Value) -> Result<Self, Invalid> {
        let empty = Value::Object(Map::new());
        let doc: LimitsInput = read_value(if value.is_null() { &empty } else { value })
            .map_err(|error| Invalid::from(error).within("/limits"))?;
        let timeout = doc.timeout.as_deref();
        let timeout = timeout.ok_or_else(|| Invalid::at("/limits/timeout", "`timeout` is required, such as `10s`"))?;
        let host_concurrency = doc.host_concurrency.map(|count| at_least_1("/limits/host_concurrency", count));
        let period =
            |pointer, text: &Option<String>| text.as_deref().map(|text| parse_period(pointer, text)).transpose();
        Ok(Self {
            concurrency: at_least_1("/limits/concurrency", doc.concurrency.unwrap_or(0))?.get(),
            host_concurrency: host_concurrency.transpose()?.map(NonZeroU32::get),
            rate: rate(doc.rate.as_deref(), doc.burst).map_err(|error| error.within("/limits"))?,
            timeout: parse_period("/limits/timeout", timeout)?,
            ttl: period("/limits/ttl", &doc.ttl)?,
            max_delay: period("/limits/max_delay", &doc.max_delay)?,
            redirects: redirects(&doc)?,
            weight: parse_weight("/limits/weight", doc.weight.unwrap_or(1))?,
            recorded_body: doc.recorded_body,
        })
    }
}

/// Parses a duration such as `1h 30m`, which must be longer than zero, and rounds it up to whole milliseconds.
///
/// # Errors
/// Returns [`Invalid`] with `pointer`.
pub fn parse_period(pointer: &str, text: &str) -> Result<Duration, Invalid> {
    match carillon_core::duration::parse_millis(text) {
        Ok(period) if !period.is_zero() => Ok(period),
        Ok(_) => Err(Invalid::at(pointer, format!("`{}` must be longer than 0", member(pointer)))),
        Err(error) => Err(Invalid::at(pointer, format!("`{}` {error}", text.escape_debug()))),
    }
}

fn parse_weight(pointer: &str, weight: u32) -> Result<u32, Invalid> {
    match weight {
        1..=MAX_WEIGHT => Ok(weight),
        _ => Err(Invalid::at(pointer, format!("`weight` must be from 1 to {MAX_WEIGHT}, not {weight}"))),
    }
}

fn at_least_1(pointer: &str, number: u32) -> Result<NonZeroU32, Invalid> {
    NonZeroU32::new(number).ok_or_else(|| Invalid::at(pointer, format!("`{}` must be at least 1", member(pointer))))
}

/// Returns the name of the member at a pointer.
fn member(pointer: &str) -> &str {
    pointer.rsplit('/').next().unwrap_or(pointer)
}

fn rate(rate: Option<&str>, burst: Option<u32>) -> Result<Option<Rate>, Invalid> {
    let burst = burst.map(|burst| at_least_1("/burst", burst)).transpose()?;
    match (rate.map(parse_rate).transpose()?, burst) {
        (None, Some(_)) => Err(Invalid::at("/burst", "`burst` requires `rate`")),
        (rate, burst) => Ok(rate.map(|rate| Rate { burst: burst.unwrap_or(rate.burst), ..rate })),
    }
}

fn redirects(doc: &LimitsInput) -> Result<Redirects, Invalid> {
    let to_http = doc.redirects_to_http.unwrap_or(false);
    match doc.redirects.unwrap_or(0) {
        count @ 0..=MAX_REDIRECTS => Ok(Redirects { most: count as usize, to_http }),
        _ => Err(Invalid::at("/limits/redirects", format!("`redirects` must be from 0 to {MAX_REDIRECTS}"))),
    }
}

/// Parses a rate; its burst is the whole count.
fn parse_rate(text: &str) -> Result<Rate, Invalid> {
    let invalid = || Invalid::at("/rate", format!("`{text}` is not a rate such as `100/s`, `600/min` or `5000/h`"));
    let (count, unit) = text.split_once('/').ok_or_else(invalid)?;
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(invalid()),
    };
    let count = count.parse().map_err(|_| invalid())?;
    Ok(Rate { count, period: Duration::from_secs(seconds), burst: count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(extra: Value) -> Result<GroupLimits, Invalid> {
        let mut doc = json!({"concurrency": 1, "timeout": "1s"});
        json_patch::merge(&mut doc, &extra);
        GroupLimits::parse(&doc)
    }

    #[test]
    fn a_burst_is_the_rates_count_unless_it_is_said() {
        let burst = |extra| parsed(extra).unwrap().rate.unwrap().burst.get();
        assert_eq!(burst(json!({"rate": "3/s"})), 3);
        assert_eq!(burst(json!({"rate": "3/s", "burst": 5})), 5);
        assert_eq!(burst(json!({"rate": "3/s", "burst": 1})), 1);
        for refused in [json!({"rate": "3/s", "burst": 0}), json!({"burst": 5})] {
            assert_eq!(parsed(refused).unwrap_err().pointer, "/limits/burst");
        }
    }

    #[test]
    fn a_weight_is_1_to_100() {
        let weight = |extra| parsed(extra).map(|limits| limits.weight).map_err(|error| error.pointer);
        assert_eq!(weight(json!({})), Ok(1));
        assert_eq!(weight(json!({"weight": 100})), Ok(100));
        assert_eq!(weight(json!({"weight": 0})), Err("/limits/weight".to_owned()));
        assert_eq!(weight(json!({"weight": 101})), Err("/limits/weight".to_owned()));
    }

    #[test]
    fn a_number_of_attempts_is_at_least_1() {
        let host = |extra| parsed(extra).map(|limits| limits.host_concurrency).map_err(|error| error.pointer);
        assert_eq!(host(json!({})), Ok(None));
        assert_eq!(host(json!({"host_concurrency": 2})), Ok(Some(2)));
        assert_eq!(host(json!({"host_concurrency": 0})), Err("/limits/host_concurrency".to_owned()));
        assert_eq!(host(json!({"concurrency": 0})), Err("/limits/concurrency".to_owned()));
        assert_eq!(host(json!({"concurrency": null})), Err("/limits/concurrency".to_owned()));
    }

    #[test]
    fn a_quota_bounds_what_it_names() {
        let parsed = |doc: Value| Quota::parse(QuotaInput::deserialize(doc).unwrap()).map_err(|error| error.pointer);
        assert_eq!(parsed(json!({})), Ok(Quota::default()));
        assert_eq!(parsed(json!({})).unwrap().weight(), 1);
        assert_eq!(parsed(json!({"weight": 7})).unwrap().weight(), 7);
        assert!(parsed(json!({"weight": 7})).unwrap().is_unbounded());
        let quota = parsed(json!({"concurrency": 5, "rate": "600/min", "burst": 2})).unwrap();
        let Rate { count, period, burst } = quota.rate.unwrap();
        assert_eq!((quota.concurrency, count.get(), period.as_secs(), burst.get()), (Some(5), 600, 60, 2));
        assert_eq!(json!(quota.doc), json!({"concurrency": 5, "rate": "600/min", "burst": 2}));
        for (doc, pointer) in [
            (json!({"concurrency": 0}), "/concurrency"),
            (json!({"rate": "fast"}), "/rate"),
            (json!({"burst": 2}), "/burst"),
            (json!({"rate": "2/s", "burst": 0}), "/burst"),
            (json!({"weight": 0}), "/weight"),
            (json!({"weight": 101}), "/weight"),
        ] {
            assert_eq!(parsed(doc), Err(pointer.to_owned()));
        }
    }

    #[test]
    fn redirects_are_followed_up_to_a_bound_and_only_if_asked_for() {
        let redirects = |extra| parsed(extra).map(|limits| limits.redirects.most).map_err(|error| error.pointer);
        assert_eq!(redirects(json!({})), Ok(0));
        assert_eq!(redirects(json!({"redirects": 10})), Ok(10));
        let to_http = |extra| parsed(extra).unwrap().redirects.to_http;
        assert!(!to_http(json!({"redirects": 10})) && to_http(json!({"redirects": 1, "redirects_to_http": true})));
        assert_eq!(redirects(json!({"redirects": 11})), Err("/limits/redirects".to_owned()));
    }
}
