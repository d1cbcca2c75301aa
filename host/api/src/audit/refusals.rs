//! Refusals in the audit log: the first ones of a source at once, then their number each minute, so that nobody fills the log.
//!
//! A source is an address, of which one refusal a minute has an entry of its own, or a token, of which [`PER_TOKEN`] have. What is remembered is
//! bounded: sources beyond [`MAX_SOURCES`] share one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use carillon_catalog::{Catalog, NewAuditEntry, Tenant};
use carillon_core::audit::{AuditObject, Origin, Outcome, Verb};
use carillon_core::clock::{Clock, UnixMs};

/// Largest number of sources that are told apart.
const MAX_SOURCES: usize = 4_096;

/// Time for which refusals are counted.
const INTERVAL: Duration = Duration::from_secs(60);

/// Number of refusals of a token that have entries of their own in a minute. Each kind of request is told apart by its entry.
const PER_TOKEN: u64 = 60;

/// Origin of refusals.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// A client without a valid token.
    Address(Option<IpAddr>),
    /// A token.
    Token(String),
}

impl Source {
    fn allowance(&self) -> u64 {
        match self {
            Self::Address(_) => 1,
            Self::Token(_) => PER_TOKEN,
        }
    }
}

/// Refused request.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) origin: Origin,
    pub(super) tenant: Option<Arc<Tenant>>,
    pub(super) verb: Verb,
    pub(super) object: AuditObject,
    pub(super) outcome: Outcome,
}

/// Refusals of a source in the present minute.
struct Tally {
    recorded: u64,
    /// Number of those without an entry, and the last of them.
    rest: Option<(u64, Refusal)>,
}

/// Refusals that were recorded a short time ago.
pub struct Refusals {
    clock: Arc<dyn Clock>,
    /// Ends the counting: what is counted by then is recorded at once.
    end: CancellationToken,
    sources: Arc<Mutex<HashMap<Source, Tally>>>,
}

impl Refusals {
    /// Counts refusals until `end`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, end: CancellationToken) -> Self {
        Self { clock, end, sources: Arc::default() }
    }

    /// Records a refusal, or counts it for the entry at the end of the minute.
    pub(super) async fn note(&self, catalog: &Arc<Catalog>, source: Source, refusal: Refusal) {
        if let Some(refusal) = self.count(catalog, source, refusal) {
            record(catalog, &refusal, 1).await;
        }
    }

    /// Returns the refusal if it is to be recorded at once.
    fn count(&self, catalog: &Arc<Catalog>, source: Source, refusal: Refusal) -> Option<Refusal> {
        let mut sources = lock(&self.sources);
        let is_room = sources.len() < MAX_SOURCES || sources.contains_key(&source);
        let source = if is_room { source } else { Source::Address(None) };
        let allowance = source.allowance();
        let tally = sources.entry(source.clone()).or_insert_with(|| {
            let minute = Minute { clock: Arc::clone(&self.clock), sources: Arc::clone(&self.sources), source };
            tokio::spawn(minute.run(Arc::clone(catalog), self.end.clone()));
            Tally { recorded: 0, rest: None }
        });
        if tally.recorded < allowance {
            tally.recorded += 1;
            return Some(refusal);
        }
        let count = tally.rest.as_ref().map_or(0, |(count, _)| *count);
        tally.rest = Some((count + 1, refusal));
        None
    }
}

/// Task that ends the minutes of a source.
struct Minute {
    clock: Arc<dyn Clock>,
    sources: Arc<Mutex<HashMap<Source, Tally>>>,
    source: Source,
}

impl Minute {
    /// Records each minute what was counted, until there is nothing or the server ends.
    async fn run(self, catalog: Arc<Catalog>, end: CancellationToken) {
        loop {
            let until: UnixMs = self.clock.now().plus(INTERVAL);
            tokio::select! {
                () = self.clock.sleep_until(until) => {}
                () = end.cancelled() => {}
            }
            let Some((count, refusal)) = self.turn() else { return };
            record(&catalog, &refusal, count).await;
        }
    }

    /// Begins another minute, and returns what the last one has counted. If that is nothing, the source is forgotten.
    fn turn(&self) -> Option<(u64, Refusal)> {
        let mut sources = lock(&self.sources);
        let rest = sources.get_mut(&self.source).and_then(|tally| {
            let rest = tally.rest.take()?;
            // The entry that is written now counts for the minute that begins.
            tally.recorded = 1;
            Some(rest)
        });
        if rest.is_none() {
            sources.remove(&self.source);
        }
        rest
    }
}

async fn record(catalog: &Catalog, refusal: &Refusal, count: u64) {
    let Refusal { origin, tenant, verb, object, outcome } = refusal;
    let (verb, object, outcome) = (verb.clone(), object.clone(), *outcome);
    let new = NewAuditEntry { origin, tenant: tenant.as_deref(), verb, object, outcome, count };
    if let Err(error) = catalog.record(new).await {
        tracing::error!(%error, count, "recording refused requests in the audit log failed");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
