//! Producers that make jobs at whichever node is open, and remember what they were promised.
//!
//! A request that is not answered, or is answered with 503, is sent again to another node, with the same `Idempotency-Key`: as a client
//! does that wants its job to be made once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carillon_core::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::GROUP;
use super::node::Node;
use crate::support::crash::ledger::Promise;
use crate::support::crash::receiver::Receiver;
use crate::support::soon;

const PRODUCERS: usize = 4;

/// The most jobs of one producer.
const MAX_JOBS: usize = 2_000;

/// The pause after each job, and after a refusal.
const PAUSE: Duration = Duration::from_millis(40);

/// How long the slowest receivers take.
const SLOW_MS: u64 = 2_000;

/// How long a producer waits for a node to answer before it asks another one.
const NO_ANSWER: Duration = Duration::from_secs(5);

/// What became of requests that were not answered with 201.
#[derive(Default)]
pub struct Refusals {
    /// The status and the answer.
    pub answered: Vec<(u16, String)>,
    /// No answer came, or the connection broke.
    pub broken: Vec<String>,
    /// How many of those had been carried out all the same.
    pub replayed: usize,
}

/// What was made.
pub struct Made {
    pub promises: Vec<Promise>,
    pub refusals: Refusals,
}

/// The producers at work.
pub struct Load {
    doors: watch::Sender<Vec<String>>,
    stop: watch::Sender<bool>,
    shared: Arc<Shared>,
    producers: Vec<JoinHandle<Vec<Promise>>>,
}

#[derive(Default)]
struct Shared {
    accepted: AtomicUsize,
    refusals: Mutex<Refusals>,
}

impl Load {
    pub fn start(nodes: &[Node], receiver: &Receiver) -> Self {
        let (doors, open) = watch::channel(nodes.iter().map(Node::base).collect());
        let (stop, stopping) = watch::channel(false);
        let shared = Arc::new(Shared::default());
        let producer = |number| Producer {
            number,
            doors: open.clone(),
            stop: stopping.clone(),
            shared: Arc::clone(&shared),
            receiver: receiver.clone(),
            http: reqwest::Client::builder().no_proxy().timeout(NO_ANSWER).pool_max_idle_per_host(0).build().unwrap(),
        };
        let producers = (0..PRODUCERS).map(|number| tokio::spawn(producer(number).run())).collect();
        Self { doors, stop, shared, producers }
    }

    /// Tells producers which nodes there are.
    pub fn open(&self, nodes: &[&Node]) {
        self.doors.send_replace(nodes.iter().map(|node| node.base()).collect());
    }

    /// How many jobs were accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// How many requests were answered with something else.
    pub fn refused(&self) -> usize {
        self.shared.refusals.lock().unwrap().answered.len()
    }

    /// Ends it. Every job that was begun has been accepted then.
    pub async fn finish(&mut self) -> Made {
        self.stop.send_replace(true);
        let all = futures_util::future::join_all(self.producers.drain(..));
        let promises = soon("the last jobs are accepted", all).await.into_iter().flat_map(Result::unwrap).collect();
        Made { promises, refusals: std::mem::take(&mut *self.shared.refusals.lock().unwrap()) }
    }
}

struct Producer {
    number: usize,
    doors: watch::Receiver<Vec<String>>,
    stop: watch::Receiver<bool>,
    shared: Arc<Shared>,
    receiver: Receiver,
    http: reqwest::Client,
}

impl Producer {
    async fn run(self) -> Vec<Promise> {
        let mut promises = Vec::new();
        for index in 0..MAX_JOBS {
            if *self.stop.borrow() {
                break;
            }
            let name = format!("{}-{index}", self.number);
            // Every other job is due at once; most succeed at once, some after failures, a few never.
            let ahead = Duration::from_millis([0, 150, 0, 600, 0, 1_200][index % 6]);
            let run_at = SystemClock.now().plus(ahead);
            let fails = [0, 0, 0, 0, 0, 0, 1, 0, 2, 9][index % 10];
            // Some receivers take long: there is always an attempt that waits for its answer.
            let takes = if index % 20 == 7 { SLOW_MS } else { [0, 5, 20, 120][index % 4] };
            let url = self.receiver.url(fails, takes);
            let job = json!({"name": name, "url": url, "payload_text": name, "run_at": run_at.to_string()});
            let id = Some(self.accepted(&name, &job).await);
            self.shared.accepted.fetch_add(1, Ordering::Relaxed);
            promises.push(Promise { name, run_at, id });
            tokio::time::sleep(PAUSE).await;
        }
        promises
    }

    /// Asks one node after the other until the job is made; its id.
    async fn accepted(&self, name: &str, job: &Value) -> String {
        for turn in self.number.. {
            let door = {
                let doors = self.doors.borrow();
                doors[turn % doors.len()].clone()
            };
            match self.ask(&door, name, job).await {
                Ok((201, answer, replayed)) => {
                    self.shared.refusals.lock().unwrap().replayed += usize::from(replayed);
                    let answer: Value = serde_json::from_str(&answer).unwrap();
                    return answer["id"].as_str().unwrap().to_owned();
                }
                Ok((status, answer, _)) => self.shared.refusals.lock().unwrap().answered.push((status, answer)),
                Err(error) => self.shared.refusals.lock().unwrap().broken.push(format!("{error:?}")),
            }
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!("there is always another turn")
    }

    /// The status, the answer, and whether it was given before.
    async fn ask(&self, door: &str, name: &str, job: &Value) -> reqwest::Result<(u16, String, bool)> {
        let request = self.http.post(format!("{door}/v1/groups/{GROUP}/jobs")).header("idempotency-key", name);
        let response = request.header("content-type", "application/json").body(job.to_string()).send().await?;
        let (status, replayed) = (response.status().as_u16(), response.headers().contains_key("idempotency-replayed"));
        Ok((status, response.text().await?, replayed))
    }
}
