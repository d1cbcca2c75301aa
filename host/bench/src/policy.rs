//! Policy calls alone, in this process, on the threads that the server uses: a fresh store for each call.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::future::try_join_all;
use zeroize::Zeroizing;

use super::{Bench, Row};
use carillon_cli::local;
use carillon_config::{Config, Sources};
use carillon_core::clock::Stopwatch;
use carillon_core::job::TenantId;
use carillon_policy::{
    Attempt, Attribute, CallResult, CallUsage, CompileBudget, Exchange, Fault, Header, JobRequests, JudgedOutcome,
    KeyKind, KeyMaterial, Limits, Plugin, PolicyThreads, QueueKey, Request, Response, Role, Runtime, Verdict,
};

/// Warm calls of a round.
const CALLS: u32 = 5_000;

/// Number of rounds, of which the median counts.
const ROUNDS: usize = 5;

/// Calls of the default plugins: role, plugin, config.
const CASES: [(Role, &str, &str); 4] = [
    (Role::Encode, "base64-envelope", "{}"),
    (Role::Sign, "werkzeug-cookie", "{}"),
    (Role::Judge, "expected-status", r#"{"expect":["2xx"]}"#),
    (Role::Retry, "backoff", r#"{"kind":"exponential","base":"2s","max":"15m","max_attempts":5,"jitter":0.2}"#),
];

/// One call with all its arguments.
struct BenchCase {
    role: Role,
    config: &'static str,
    plugin: Arc<Plugin>,
    limits: Arc<Limits>,
    keys: Vec<Arc<KeyMaterial>>,
    attempt: Attempt,
    request: Request,
    exchange: Exchange,
    verdict: Verdict,
}

impl Bench {
    /// Measures each role: the first call, and warm calls on one and on two threads.
    pub(super) async fn policy(&self) -> anyhow::Result<Vec<Row>> {
        let runtime = local::runtime(&Config::load(Sources::default())?, 2)?;
        let bar = self.bar("policy", CASES.len())?;
        let mut rows = Vec::new();
        for (role, name, config) in CASES {
            let case = Arc::new(self.case(&runtime, role, name, config).await?);
            let cold = case.round(&runtime.threads, 1, 1).await?;
            let (one, two) = (case.median(&runtime.threads, 1).await?, case.median(&runtime.threads, 2).await?);
            let row = Row::new(&format!("policy, {role}")).figure("cold_us", micros(cold));
            let row = row.figure("call_us", micros(one)).figure("call_us_two_threads", micros(two));
            rows.push(row.figure("two_to_one", 2.0 * one.as_secs_f64() / two.as_secs_f64()));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(rows)
    }

    async fn case(&self, runtime: &Runtime, role: Role, name: &str, config: &'static str) -> anyhow::Result<BenchCase> {
        let embedded = carillon_default_plugins::ALL.iter().find(|plugin| plugin.name == name);
        let component = bytes::Bytes::from_static(embedded.context("a default plugin is missing")?.component);
        Ok(BenchCase {
            role,
            config,
            plugin: runtime.registry.admit(local::NOBODY, CompileBudget::UNBOUNDED, &component).await?.plugin,
            limits: Arc::clone(&runtime.limits),
            keys: vec![Arc::new(key()?)],
            attempt: attempt(),
            request: self.request(role)?,
            exchange: exchange(),
            verdict: Verdict { outcome: JudgedOutcome::Retryable, reason: "status 503".to_owned() },
        })
    }

    /// Returns the request that the plugin of a role sees in a delivery: a signer sees the envelope that an encoder made.
    fn request(&self, role: Role) -> anyhow::Result<Request> {
        let body = match role {
            Role::Sign => {
                let payload = "A".repeat(self.payload_bytes.div_ceil(3) * 4);
                let envelope = serde_json::json!({"payload": payload, "tries": 1, "req_id": "5c0a1f3b9d27"});
                serde_json::to_vec(&envelope)?
            }
            _ => vec![b'x'; self.payload_bytes],
        };
        Ok(Request { method: "POST".to_owned(), url: "http://127.0.0.1:7071/".to_owned(), headers: Vec::new(), body })
    }
}

impl BenchCase {
    /// Returns the median time of a call while `callers` of the threads make calls.
    async fn median(self: &Arc<Self>, threads: &PolicyThreads, callers: u32) -> anyhow::Result<Duration> {
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            times.push(self.round(threads, callers, CALLS).await?);
        }
        times.sort_unstable();
        times.get(ROUNDS / 2).copied().context("no round was run")
    }

    /// Returns the mean time of a call while `callers` of the threads make `calls` calls each.
    async fn round(self: &Arc<Self>, threads: &PolicyThreads, callers: u32, calls: u32) -> anyhow::Result<Duration> {
        let run = |caller: u32| {
            let case = Arc::clone(self);
            threads.run(QueueKey::of_tenant(TenantId(caller.into())), move || case.run(calls))
        };
        let times: Vec<Duration> =
            try_join_all((0..callers).map(run)).await?.into_iter().collect::<anyhow::Result<_>>()?;
        Ok(times.iter().sum::<Duration>() / callers)
    }

    /// Returns the mean time of `calls` calls.
    fn run(&self, calls: u32) -> anyhow::Result<Duration> {
        let mut spent = Duration::ZERO;
        for _ in 0..calls {
            let request = self.request.clone();
            let stopwatch = Stopwatch::start();
            self.call(request)?;
            spent += stopwatch.elapsed();
        }
        Ok(spent / calls)
    }

    /// Makes one call and returns its usage.
    fn call(&self, request: Request) -> anyhow::Result<CallUsage> {
        let (limits, attempt, config) = (&*self.limits, &self.attempt, self.config);
        let (usage, fault) = match self.role {
            Role::Encode => outcome(self.plugin.encode(limits, attempt, config, &request)),
            Role::Sign => outcome(self.plugin.sign(limits, attempt, config, request, &self.keys)),
            Role::Judge => outcome(self.plugin.judge(limits, attempt, config, &self.exchange)),
            Role::Retry => outcome(self.plugin.retry(limits, attempt, config, &self.verdict, &[])),
            Role::Observe => outcome(self.plugin.observe(limits, config, &[], JobRequests::Denied)),
        };
        match fault {
            None => Ok(usage),
            Some(fault) => Err(anyhow!("{}: {fault}", self.role)),
        }
    }
}

fn outcome<T>(called: CallResult<T>) -> (CallUsage, Option<Fault>) {
    (called.usage, called.result.err())
}

fn exchange() -> Exchange {
    Exchange::Response(Response {
        status: 200,
        headers: vec![Header { name: "content-length".to_owned(), value: b"2".to_vec() }],
        body: b"ok".to_vec(),
        truncated: false,
        elapsed_ms: 1,
    })
}

fn key() -> anyhow::Result<KeyMaterial> {
    let secret = Zeroizing::new(b"correct horse battery staple".to_vec());
    KeyMaterial::new("bench/1".to_owned(), KeyKind::Secret, secret).map_err(|error| anyhow!(error))
}

fn attempt() -> Attempt {
    Attempt {
        job_id: "01a0f7a2-5f1c-7c3e-9f43-1b2f6a1d7c11".to_owned(),
        group: "bench".to_owned(),
        number: 1,
        run_at_ms: 1_795_168_800_000,
        now_ms: 1_795_168_800_001,
        created_ms: 1_795_168_790_000,
        deadline_ms: None,
        seed: 7,
        attributes: vec![Attribute { key: "tenant".to_owned(), value: "default".to_owned() }],
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
