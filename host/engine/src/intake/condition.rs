//! Admission conditions of a posted job: deduplicated, debounced, in place of others, or none.

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use url::Url;

use super::error::IntakeError;
use super::input::{JobInput, check_key};
use carillon_core::job::{Admission, Carries, Debounce, Spec, Target};
use carillon_core::limits::ByteLimit;
use carillon_policy::binding::parse_period;

/// Default and largest time for which a dedupe key is remembered.
const DEDUPE_WINDOW: Duration = Duration::from_secs(5 * 60);
const MAX_DEDUPE_WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// Largest rounding error of a window, which must be a whole number of milliseconds.
const INEXACTNESS: Duration = Duration::from_nanos(1_000);

/// Longest window of a debounce key.
const MAX_DEBOUNCE: Duration = Duration::from_secs(30 * 86_400);

/// Reads the admission condition of a document.
///
/// # Errors
/// Returns [`IntakeError`] with a JSON pointer to the offending field.
pub(super) fn admission(
    doc: &JobInput,
    spec: &Spec,
    body: &[u8],
    ttl: Option<Duration>,
    name: ByteLimit,
) -> Result<Admission, IntakeError> {
    check_key("/dedupe_key", doc.dedupe_key.as_deref(), name)?;
    check_key("/debounce_key", doc.debounce_key.as_deref(), name)?;
    let window = doc.debounce_seconds.map(debounce_window).transpose()?.filter(|window| !window.is_zero());
    if doc.replace {
        return replace(doc, window.is_some());
    }
    let Some(window) = window else {
        if doc.debounce_always_delay || doc.debounce_key.is_some() {
            return Err(IntakeError::invalid(
                "/debounce_seconds",
                "`debounce_seconds` must be greater than 0 when `debounce_key` or `debounce_always_delay` is set",
            ));
        }
        return dedupe(doc);
    };
    if doc.dedupe_key.is_some() {
        return Err(IntakeError::invalid("/dedupe_key", "`dedupe_key` and `debounce_seconds` exclude each other"));
    }
    if doc.run_at.as_ref().is_some_and(|at| !at.is_null()) {
        return Err(IntakeError::invalid("/run_at", "`run_at` and `debounce_seconds` exclude each other"));
    }
    if ttl.is_some_and(|ttl| window > ttl) {
        return Err(IntakeError::invalid("/debounce_seconds", "the job would expire (`limits.ttl`) before it is due"));
    }
    let (key, carries) = match &doc.debounce_key {
        Some(key) => (key.clone(), Carries::Newest),
        None => (content_key(spec, body), Carries::First),
    };
    Ok(Admission::Debounced(Debounce { key, window, always_delay: doc.debounce_always_delay, carries }))
}

fn replace(doc: &JobInput, is_debounced: bool) -> Result<Admission, IntakeError> {
    if doc.name.is_none() {
        return Err(IntakeError::invalid(
            "/replace",
            "`replace` requires `name`: the unfinished jobs of that name are replaced",
        ));
    }
    if is_debounced || doc.dedupe_key.is_some() {
        return Err(IntakeError::invalid(
            "/replace",
            "`replace`, `dedupe_key` and `debounce_seconds` exclude each other",
        ));
    }
    Ok(Admission::Replace { moved: None })
}

fn debounce_window(seconds: f64) -> Result<Duration, IntakeError> {
    let invalid = |detail: String| IntakeError::invalid("/debounce_seconds", detail);
    let window = Duration::try_from_secs_f64(seconds).ok().filter(|window| *window <= MAX_DEBOUNCE);
    let window = window.ok_or_else(|| {
        let most = MAX_DEBOUNCE.as_secs();
        invalid(format!("`debounce_seconds` must be from 0 to {most}"))
    })?;
    // A float is seldom exactly the millisecond that was written.
    let half = Duration::from_micros(500);
    let whole = Duration::from_millis(u64::try_from((window + half).as_millis()).unwrap_or(u64::MAX));
    if window.abs_diff(whole) > INEXACTNESS {
        return Err(invalid(format!("`{seconds}` is not a whole number of milliseconds")));
    }
    Ok(whole)
}

fn dedupe(doc: &JobInput) -> Result<Admission, IntakeError> {
    let window = doc.dedupe_window.as_deref().map(|text| parse_period("/dedupe_window", text)).transpose()?;
    match (&doc.dedupe_key, window) {
        (None, None) => Ok(Admission::Always),
        (None, Some(_)) => Err(IntakeError::invalid("/dedupe_window", "`dedupe_window` requires `dedupe_key`")),
        (Some(_), Some(window)) if window > MAX_DEDUPE_WINDOW => {
            let most = carillon_core::duration::format(MAX_DEDUPE_WINDOW);
            Err(IntakeError::invalid("/dedupe_window", format!("`dedupe_window` must be at most {most}")))
        }
        (Some(key), window) => Ok(Admission::Unique { key: key.clone(), window: window.unwrap_or(DEDUPE_WINDOW) }),
    }
}

/// Returns a key that is equal for jobs which would send the same request. Each part has its length in front, so that different parts never
/// yield one key.
fn content_key(spec: &Spec, body: &[u8]) -> String {
    let (method, url) = match &spec.target {
        // Different spellings of one URL count as one.
        Some(Target { method, url, .. }) => {
            (method.as_str(), Url::parse(url).map_or_else(|_| url.clone(), String::from))
        }
        None => ("", String::new()),
    };
    let mut hash = Sha256::new();
    for part in [method.as_bytes(), url.as_bytes(), body] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}
