//! Input of the policies: the facts of an attempt, and the request with which they begin.

use url::Url;

use carillon_catalog::Group;
use carillon_core::clock::UnixMs;
use carillon_core::job::{LeasedJob, Target};
use carillon_policy::{Attempt, Attribute, Header, Request};

/// Builds the job's request, before any policy has seen it. A job without a target is never claimed for delivery.
pub(super) fn request_of(leased: &LeasedJob, target: &Target) -> Request {
    let header = |(name, value): (String, String)| Header { name, value: value.into_bytes() };
    Request {
        method: target.method.clone(),
        // The URL in the form in which it is sent, whatever spelling the client used.
        url: Url::parse(&target.url).map_or_else(|_| target.url.clone(), String::from),
        headers: target.headers_for(leased.job.spec.is_json).into_iter().map(header).collect(),
        body: leased.body.to_vec(),
    }
}

/// Builds the facts that policies see of an attempt.
pub(super) fn facts(group: &Group, leased: &LeasedJob, now: UnixMs) -> Attempt {
    let job = &leased.job;
    let attribute = |key: String, value: &str| Attribute { key, value: value.to_owned() };
    let mut attributes = vec![attribute("tenant".to_owned(), &group.tenant.name)];
    attributes.extend(job.name.as_ref().map(|name| attribute("job-name".to_owned(), name)));
    attributes
        .extend(job.spec.metadata.texts().map(|text| attribute(format!("metadata.{}", text.flat_name()), text.value)));
    Attempt {
        job_id: job.id.to_string(),
        group: group.name.clone(),
        number: leased.number_in_series(),
        run_at_ms: job.run_at.as_u64(),
        now_ms: now.as_u64(),
        created_ms: job.created_at.as_u64(),
        deadline_ms: job.expires_at().map(UnixMs::as_u64),
        seed: seed_of(job.seed, leased.number()),
        attributes,
    }
}

/// Returns the seed of one attempt: the job's, mixed with the number by SplitMix64 (Steele, Lea, Flood 2014).
pub(super) fn seed_of(seed: u32, number: u32) -> u32 {
    let mut mixed = (u64::from(seed) << 32 | u64::from(number)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_a_seed_of_its_own() {
        let seeds: std::collections::HashSet<_> = (0..1_000).map(|number| seed_of(7, number)).collect();
        assert_eq!(seeds.len(), 1_000);
        assert_eq!(seed_of(7, 3), seed_of(7, 3));
    }
}
