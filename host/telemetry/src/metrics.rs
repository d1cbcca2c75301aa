//! Metrics under `/metrics`, in the OpenMetrics text format. Labels are few and bounded: no metric is labelled by group or job.

mod labels;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use self::labels::{BoundLabel, CodeLabel, FaultLabels, OutcomeLabel, ReasonLabel, RoleLabel, StateLabel};
use super::process::Process;
use super::request_labels::RequestLabels;
use carillon_core::clock::UnixMs;
use carillon_core::job::{PluginUse, Settlement, SkippedTicks};
use carillon_store::{Backlog, SettleOutcome};

/// Upper bounds of the buckets for delays and exchanges, in seconds.
const SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of the buckets for policy calls, in seconds.
const POLICY_SECONDS: [f64; 12] =
    [0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1];

/// Microseconds in a second.
const MICROS: f64 = 1_000_000.0;

/// Outcome of an event for an observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObserverOutcome {
    /// The event was shown.
    Shown,
    /// The call that showed it ended in a fault.
    Failed,
    /// The event was not shown.
    Dropped,
}

/// Outcome of an attempt for a shadow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowOutcome {
    /// The results are the same.
    Same,
    /// The results differ.
    Different,
    /// A policy of the shadow had a fault.
    Fault,
    /// The shadow was not shown the attempt.
    Dropped,
}

/// All counters, gauges and histograms.
pub struct Metrics {
    registry: Registry,
    accepted: Counter,
    ended: Family<StateLabel, Counter>,
    attempts: Family<OutcomeLabel, Counter>,
    claims: Counter,
    leases_lost: Counter,
    schedule_runs_skipped: Family<ReasonLabel, Counter>,
    lateness: Histogram,
    exchange: Histogram,
    policy: Family<RoleLabel, Histogram>,
    faults: Family<FaultLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    observed: Family<OutcomeLabel, Counter>,
    shadowed: Family<OutcomeLabel, Counter>,
    refused: Family<BoundLabel, Counter>,
    certificate_reads: Family<OutcomeLabel, Counter>,
    breakers_opened: Counter,
    breakers_open: Gauge,
    ready: Gauge,
    loop_restarts: Gauge<i64, AtomicI64>,
    streams: Gauge,
    waiting_consumers: Gauge,
    running: Gauge,
    policy_queue: Gauge<i64, AtomicI64>,
    policies_quarantined: Gauge,
    plugins_loaded: Gauge<i64, AtomicI64>,
    plugins_loaded_bytes: Gauge<i64, AtomicI64>,
    commits: Counter,
    commands: Counter,
    store_failures: Counter,
    database_bytes: Gauge,
    jobs_waiting: Gauge,
    jobs_due: Gauge,
    oldest_due: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            accepted: Counter::default(),
            ended: Family::default(),
            attempts: Family::default(),
            claims: Counter::default(),
            leases_lost: Counter::default(),
            schedule_runs_skipped: Family::default(),
            lateness: Histogram::new(SECONDS),
            exchange: Histogram::new(SECONDS),
            policy: Family::new_with_constructor(|| Histogram::new(POLICY_SECONDS)),
            faults: Family::default(),
            requests: Family::default(),
            observed: Family::default(),
            shadowed: Family::default(),
            refused: Family::default(),
            certificate_reads: Family::default(),
            breakers_opened: Counter::default(),
            breakers_open: Gauge::default(),
            ready: Gauge::default(),
            loop_restarts: Gauge::default(),
            streams: Gauge::default(),
            waiting_consumers: Gauge::default(),
            running: Gauge::default(),
            policy_queue: Gauge::default(),
            policies_quarantined: Gauge::default(),
            plugins_loaded: Gauge::default(),
            plugins_loaded_bytes: Gauge::default(),
            commits: Counter::default(),
            commands: Counter::default(),
            store_failures: Counter::default(),
            database_bytes: Gauge::default(),
            jobs_waiting: Gauge::default(),
            jobs_due: Gauge::default(),
            oldest_due: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        self.registry.register_collector(Box::new(Process));
        let registry = self.registry.sub_registry_with_prefix("carillon");
        registry.register("build", "Version of the program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("jobs_accepted", "Jobs that were accepted", self.accepted.clone());
        registry.register("jobs_ended", "Jobs that reached a final state, by state", self.ended.clone());
        registry.register("attempts", "Attempts, by outcome", self.attempts.clone());
        registry.register("claims", "Transactions that leased jobs for delivery", self.claims.clone());
        registry.register("leases_lost", "Settlements refused because the lease had expired", self.leases_lost.clone());
        let skipped = self.schedule_runs_skipped.clone();
        registry.register("schedule_runs_skipped", "Runs of schedules that created no job, by reason", skipped);
        let (lateness, exchange, policy) = (self.lateness.clone(), self.exchange.clone(), self.policy.clone());
        registry.register_with_unit(
            "lateness",
            "Time from run_at to the start of the attempt, or to the sending of a request that was ready before",
            Unit::Seconds,
            lateness,
        );
        registry.register_with_unit(
            "exchange",
            "Time from the request to the end of its response",
            Unit::Seconds,
            exchange,
        );
        registry.register_with_unit("policy_call", "Duration of policy calls, by role", Unit::Seconds, policy);
        registry.register("policy_faults", "Policy calls that ended in a fault, by role and code", self.faults.clone());
        registry.register("http_requests", "Requests to the API, by method, route and status", self.requests.clone());
        registry.register("observer_events", "Events for observers, by outcome", self.observed.clone());
        registry.register("shadow_attempts", "Attempts for shadows, by outcome", self.shadowed.clone());
        registry.register("breakers_open", "Receivers whose circuit breaker is open now", self.breakers_open.clone());
        registry.register(
            "refused",
            "What was refused because of a bound, by the bound's setting",
            self.refused.clone(),
        );
        let reads = "Readings of the server's certificate since the start, by outcome";
        registry.register("tls_certificate_reloads", reads, self.certificate_reads.clone());
        registry.register("breakers_opened", "Circuit breakers that opened", self.breakers_opened.clone());
        let ready = "1 if jobs are accepted and delivered, as far as is known without a test write, otherwise 0";
        registry.register("ready", ready, self.ready.clone());
        let restarts = "Restarts of background loops that panicked";
        registry.register("background_restarts", restarts, self.loop_restarts.clone());
        registry.register("event_streams", "Event streams that are open now", self.streams.clone());
        let waiting = "Requests for leases that wait for jobs now";
        registry.register("waiting_consumers", waiting, self.waiting_consumers.clone());
        registry.register("attempts_running", "Attempts that run now", self.running.clone());
        registry.register("policy_queue", "Policy calls that wait for a thread now", self.policy_queue.clone());
        let quarantined = self.policies_quarantined.clone();
        registry.register("policies_quarantined", "Policies that are quarantined now", quarantined);
        registry.register("plugins_loaded", "Plugins whose code is loaded now", self.plugins_loaded.clone());
        let bytes = self.plugins_loaded_bytes.clone();
        registry.register_with_unit("plugins_loaded", "Size of the loaded code of plugins", Unit::Bytes, bytes);
        registry.register("store_commits", "Transactions that the store's writer committed", self.commits.clone());
        registry.register(
            "store_commands",
            "Commands in the transactions that the store's writer committed",
            self.commands.clone(),
        );
        registry.register(
            "store_errors",
            "Failures of the database, and stored jobs that cannot be read",
            self.store_failures.clone(),
        );
        registry.register_with_unit("database", "Size of the database", Unit::Bytes, self.database_bytes.clone());
        registry.register("jobs_waiting", "Jobs that wait for their run_at or for a start", self.jobs_waiting.clone());
        registry.register("jobs_due", "Jobs that are due and wait for a start", self.jobs_due.clone());
        let oldest = self.oldest_due.clone();
        registry.register_with_unit(
            "oldest_due_job_age",
            "Time since the earliest of the due jobs became due",
            Unit::Seconds,
            oldest,
        );
    }

    /// Counts stored jobs.
    pub fn accepted(&self, jobs: u64) {
        self.accepted.inc_by(jobs);
    }

    /// Counts a claim that leased jobs.
    pub fn claimed(&self) {
        self.claims.inc();
    }

    /// Counts ticks of a schedule that made no job.
    pub fn ticks_skipped(&self, skipped: &SkippedTicks) {
        let reason = ReasonLabel { reason: skipped.reason.as_str() };
        self.schedule_runs_skipped.get_or_create(&reason).inc_by(skipped.count);
    }

    /// Counts a request to the API.
    pub fn request(&self, labels: &RequestLabels) {
        self.requests.get_or_create(labels).inc();
    }

    /// Sets whether the server is ready, and how often a background loop was restarted.
    pub fn health(&self, is_ready: bool, loop_restarts: u64) {
        self.ready.set(i64::from(is_ready));
        self.loop_restarts.set(i64::try_from(loop_restarts).unwrap_or(i64::MAX));
    }

    /// Sets the gauges of the present moment.
    pub fn now(&self, running: usize, policy_queue: usize, streams: usize, breakers_open: usize) {
        self.breakers_open.set(i64::try_from(breakers_open).unwrap_or(i64::MAX));
        self.streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.policy_queue.set(i64::try_from(policy_queue).unwrap_or(i64::MAX));
    }

    /// Sets the number of consumers that wait for jobs.
    pub fn waiting_consumers(&self, count: usize) {
        self.waiting_consumers.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Sets the number of quarantined policies.
    pub fn quarantined(&self, policies: usize) {
        self.policies_quarantined.set(i64::try_from(policies).unwrap_or(i64::MAX));
    }

    /// Sets the number of loaded plugins, and the memory of their code.
    pub fn plugins(&self, count: usize, bytes: usize) {
        self.plugins_loaded.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.plugins_loaded_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts something that was refused because of a bound; `bound` is the name of its setting.
    pub fn refused(&self, bound: &'static str) {
        self.refused.get_or_create(&BoundLabel { bound }).inc();
    }

    /// Counts a reading of the server's certificate after the start.
    pub fn certificate_read(&self, is_replaced: bool) {
        let outcome = if is_replaced { "replaced" } else { "failed" };
        self.certificate_reads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a circuit breaker that opened.
    pub fn breaker_opened(&self) {
        self.breakers_opened.inc();
    }

    /// Sets the counters of the store. Commands divided by commits is the mean size of a group commit.
    pub fn store(&self, commits: u64, commands: u64, failures: u64) {
        // The store counts, and its counts only rise.
        self.commits.inner().store(commits, Ordering::Relaxed);
        self.commands.inner().store(commands, Ordering::Relaxed);
        self.store_failures.inner().store(failures, Ordering::Relaxed);
    }

    /// Sets the gauges of the store's backlog.
    pub fn backlog(&self, backlog: &Backlog, now: UnixMs) {
        self.jobs_waiting.set(i64::try_from(backlog.waiting).unwrap_or(i64::MAX));
        self.jobs_due.set(i64::try_from(backlog.due).unwrap_or(i64::MAX));
        self.database_bytes.set(i64::try_from(backlog.database_bytes).unwrap_or(i64::MAX));
        self.oldest_due.set(backlog.earliest.map_or(0.0, |earliest| now.since(earliest).as_secs_f64()));
    }

    pub(super) fn settled(&self, settlement: &Settlement, settled: SettleOutcome) {
        let state = match settled {
            SettleOutcome::Applied(state) => state,
            SettleOutcome::LeaseLost => {
                self.leases_lost.inc();
                return;
            }
        };
        if state.is_final() {
            self.ended.get_or_create(&StateLabel { state: state.as_str() }).inc();
        }
        let Some(attempt) = &settlement.attempt else { return };
        let outcome = if attempt.detail.spent { attempt.outcome.as_str() } else { "unsent" };
        self.attempts.get_or_create(&OutcomeLabel { outcome }).inc();
        let timings = &attempt.detail.timings;
        self.lateness.observe(seconds(timings.late));
        if timings.exchange > 0 {
            self.exchange.observe(seconds(timings.exchange));
        }
        attempt.detail.plugins.iter().for_each(|used| self.policy_call(used));
    }

    /// Counts events that an observer was shown, or not.
    pub fn observed(&self, outcome: ObserverOutcome, events: u64) {
        let outcome = match outcome {
            ObserverOutcome::Shown => "shown",
            ObserverOutcome::Failed => "failed",
            ObserverOutcome::Dropped => "dropped",
        };
        self.observed.get_or_create(&OutcomeLabel { outcome }).inc_by(events);
    }

    /// Counts an attempt that a shadow was shown, or not.
    pub fn shadowed(&self, outcome: ShadowOutcome) {
        let outcome = match outcome {
            ShadowOutcome::Same => "same",
            ShadowOutcome::Different => "different",
            ShadowOutcome::Fault => "fault",
            ShadowOutcome::Dropped => "dropped",
        };
        self.shadowed.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a call of a policy.
    pub fn policy_call(&self, used: &PluginUse) {
        self.policy.get_or_create(&RoleLabel { role: used.role.clone() }).observe(seconds(used.micros));
        if let Some(code) = &used.fault {
            self.faults.get_or_create(&FaultLabels { role: used.role.clone(), code: CodeLabel(code.clone()) }).inc();
        }
    }

    /// Returns the metrics as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("encoding metrics failed");
        }
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 µs are 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / MICROS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::reference::names_in;
    use carillon_core::error_code::{ErrorCode, FaultCode};

    /// Makes metrics in which every family has a series: families without one are not rendered.
    fn filled() -> Metrics {
        let metrics = Metrics::default();
        metrics.ended.get_or_create(&StateLabel { state: "dead" }).inc();
        for family in [&metrics.attempts, &metrics.observed, &metrics.shadowed] {
            family.get_or_create(&OutcomeLabel { outcome: "dropped" }).inc();
        }
        metrics.schedule_runs_skipped.get_or_create(&ReasonLabel { reason: "paused" }).inc();
        metrics.policy.get_or_create(&RoleLabel { role: "judge".into() }).observe(0.0);
        let code = CodeLabel(FaultCode::Trap.into());
        metrics.faults.get_or_create(&FaultLabels { role: "judge".into(), code }).inc();
        metrics.request(&RequestLabels::new("GET", "/v1/groups", 200));
        metrics.refused("limits.job");
        metrics.certificate_read(true);
        metrics
    }

    /// Returns the names of all registered metrics, each as its samples have it.
    fn registered() -> BTreeSet<String> {
        let text = filled().render();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let suffix = |kind: &str| match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        types.map(|(name, kind)| format!("{name}{}", suffix(kind))).collect()
    }

    #[test]
    fn every_call_that_registers_a_metric_renders_one() {
        let (code, _) = include_str!("metrics.rs").split_once("#[cfg(test)]").unwrap();
        let calls = code.matches("registry.register(").count() + code.matches("registry.register_with_unit(").count();
        let found = registered().iter().filter(|name| name.starts_with("carillon_")).count();
        assert_eq!(found, calls, "does `filled` make a series for each family?");
    }

    #[test]
    fn reference_page_names_every_metric_and_no_other() {
        assert_eq!(names_in(include_str!("../../../docs/reference/metrics.md")), registered());
    }

    #[test]
    fn every_error_code_is_the_label_of_its_faults() {
        let metrics = Metrics::default();
        for code in ErrorCode::ALL {
            metrics.faults.get_or_create(&FaultLabels { role: "judge".into(), code: CodeLabel(code.clone()) }).inc();
            let line = format!("carillon_policy_faults_total{{role=\"judge\",code=\"{code}\"}} 1\n");
            assert!(metrics.render().contains(&line), "{line}");
        }
    }

    #[test]
    fn the_text_is_open_metrics() {
        let metrics = Metrics::default();
        metrics.accepted(3);
        metrics.request(&RequestLabels::new("GET", "/v1/groups", 200));
        let text = metrics.render();
        assert!(text.contains("carillon_jobs_accepted_total 3\n"), "{text}");
        assert!(text.contains(r#"carillon_http_requests_total{method="GET",route="/v1/groups",status="200"} 1"#));
        assert!(
            text.contains(concat!("carillon_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n")),
            "{text}"
        );
        metrics.store(7, 9, 2);
        let text = metrics.render();
        assert!(text.contains("# TYPE carillon_store_commits counter\n"), "{text}");
        assert!(text.contains("carillon_store_commits_total 7\n"), "{text}");
        assert!(text.contains("carillon_store_errors_total 2\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
