//! `kill -9` in the middle of everything.

use std::sync::Arc;
use std::time::Duration;

use carillon_core::clock::{Clock as _, SystemClock};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::sync::watch;

use crate::support::crash::ledger::{Promise, check};
use crate::support::crash::process::{Client, Server};
use crate::support::crash::receiver::Receiver;

const JOBS: usize = 2_000;
const PRODUCERS: usize = 8;
const KILLS: u32 = 5;
const MAX_ATTEMPTS: u64 = 4;

/// xorshift64 (Marsaglia 2003), so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_job_ends_once_however_often_the_server_is_killed() {
    let mut server = Server::start(&[("engine.lease", "1s"), ("policy.deadline", "5s")]);
    let receiver = Receiver::start().await;
    let retry = json!({"plugin": "backoff", "config": {"kind": "fixed", "base": "50ms", "max_attempts": MAX_ATTEMPTS, "jitter": 0.0}});
    server
        .client()
        .put("/v1/groups/ledger", &json!({"retry": retry, "limits": {"concurrency": 64, "timeout": "10s"}}))
        .await;

    let (announce, alive) = watch::channel(Some(server.client()));
    let receiver = Arc::new(receiver);
    let producers =
        (0..PRODUCERS).map(|producer| tokio::spawn(produce(producer, alive.clone(), Arc::clone(&receiver))));
    let producers: Vec<_> = producers.collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(250 + dice.roll(700))).await;
        receiver.hold().await;
        announce.send_replace(None);
        server.kill();
        receiver.release();
        server.restart();
        announce.send_replace(Some(server.client()));
    }
    let promises: Vec<_> =
        futures_util::future::join_all(producers).await.into_iter().flat_map(Result::unwrap).collect();
    let client = server.client();
    client.until_done("ledger").await;

    let answered = promises.iter().filter(|promise| promise.id.is_some()).count();
    let arrivals = receiver.arrivals();
    let interrupted = check(&client, "ledger", &promises, &arrivals, MAX_ATTEMPTS).await;
    assert!(answered > JOBS / 2, "the test is one of jobs that were accepted: {answered}");
    assert!(interrupted >= KILLS as usize, "each kill came in the middle of an attempt: {interrupted}");

    // Longer than a lease: nothing comes back to life.
    client.put("/v1/groups/later", &json!({})).await;
    client.post_job("later", &json!({"url": receiver.url(0, 0), "run_at": "+1500ms"})).await;
    client.until_done("later").await;
    assert_eq!(receiver.arrivals().len(), arrivals.len() + 1, "the job that is later than a lease, and nothing else");
    assert_eq!(check(&client, "ledger", &promises, &arrivals, MAX_ATTEMPTS).await, interrupted);
}

async fn produce(producer: usize, mut alive: watch::Receiver<Option<Client>>, receiver: Arc<Receiver>) -> Vec<Promise> {
    let mut dice = Dice(producer as u64 + 1);
    let mut promises = Vec::new();
    for index in 0..JOBS / PRODUCERS {
        let client = alive.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        let name = format!("{producer}-{index}");
        let ahead = if index % 2 == 0 { 0 } else { dice.roll(2_000) };
        let run_at = SystemClock.now().plus(Duration::from_millis(ahead));
        // Most succeed at once, some after failures, a few never.
        let fails = [0, 0, 0, 0, 0, 1, 1, 2, 3, 9][index % 10];
        let url = receiver.url(fails, dice.roll(30));
        let job = json!({"name": name, "url": url, "payload_text": name, "run_at": run_at.to_string()});
        let answer = client.try_send(Method::POST, "/v1/groups/ledger/jobs", job.to_string().into_bytes()).await;
        let id = match answer {
            Ok((StatusCode::CREATED, job)) => Some(job["id"].as_str().unwrap().to_owned()),
            Ok((status, problem)) => panic!("{status}: {problem}"),
            Err(_) => None,
        };
        promises.push(Promise { name, run_at, id });
        tokio::time::sleep(Duration::from_millis(dice.roll(20))).await;
    }
    promises
}
