//! Many plugins, each bound by a group of its own: their memory, and the time of a call while its plugin is loaded and after it was unloaded
//! for others.
//!
//! The plugins are one signer under many names. The names have the length of its own name and replace it in the component, so that each
//! plugin is different code to the server.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::ProgressBar;
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use super::server::{LOOK, Server};
use super::sink::Sink;
use super::{Bench, Row};
use carillon_client::bodies::{JobInput, Payload};
use carillon_core::clock::Stopwatch;

/// Name of the signer.
const SIGNER: &str = "werkzeug-cookie";

/// Compiled code that the server keeps loaded: room for about two hundred of the plugins, so that most must be unloaded.
const LOADED_SIZE: &str = "64MiB";

/// Concurrent uploads, or concurrent submitters of jobs.
const AT_ONCE: usize = 4;

/// Delivered jobs of each group.
const JOBS: usize = 10;

/// Calls of a plugin that stays loaded.
const WARM_CALLS: usize = 1_000;

impl Bench {
    /// Uploads, binds, calls and delivers.
    pub(super) async fn many_plugins(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let settings = [("CARILLON_POLICY__LOADED_SIZE", LOADED_SIZE)];
        let server = Server::start_with(&self.dir, self.store.as_deref(), self.nodes, &settings).await?;
        let (idle, stopwatch) = (server.usage(), Stopwatch::start());
        let bar = self.bar("plugins, uploaded", self.plugins)?;
        let component = component()?;
        let bound = stream::iter((0..self.plugins).map(|number| bind(&server, component, number, &bar)));
        bound.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        bar.finish_and_clear();
        let uploaded = Row::new("plugins, uploaded and bound").rate(self.plugins, stopwatch.elapsed());
        let uploaded = uploaded.server(idle, server.usage()).figure("idle_rss_mib", idle.rss);
        Ok(vec![uploaded, self.cold(&server).await?, warm(&server).await?, self.over_all_groups(&server, sink).await?])
    }

    /// Calls each plugin in turn. If there is not room for all, the called one was unloaded long before.
    async fn cold(&self, server: &Server) -> anyhow::Result<Row> {
        let (before, stopwatch) = (server.usage(), Stopwatch::start());
        let bar = self.bar("plugins, called in turn", self.plugins)?;
        let mut times = Vec::with_capacity(self.plugins);
        for number in 0..self.plugins {
            times.push(simulate(server, &name(number)).await?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        let row = Row::new("simulate, each plugin in turn").rate(self.plugins, stopwatch.elapsed());
        Ok(row.times(times).server(before, server.usage()))
    }

    /// Delivers jobs of all groups, group after group, until all have arrived.
    async fn over_all_groups(&self, server: &Server, sink: &Sink) -> anyhow::Result<Row> {
        sink.reset().await?;
        let jobs = self.plugins * JOBS;
        let bar = self.bar("plugins, delivered with", jobs)?;
        let job = JobInput { payload: Some(Payload::Json(to_raw_value(&payload())?)), ..self.job(sink) };
        let batch = json!({ "jobs": vec![job; JOBS] });
        let (before, stopwatch) = (server.usage(), Stopwatch::start());
        let post = async |number: usize| {
            server.client().post::<Value>(&["groups", &name(number), "jobs", "batch"], &batch).await
        };
        stream::iter((0..self.plugins).map(post)).buffer_unordered(AT_ONCE).try_collect::<Vec<Value>>().await?;
        let mut arrived = 0;
        while arrived < jobs as u64 {
            arrived = sink.tally().await?.count;
            bar.set_position(arrived);
            tokio::time::sleep(LOOK).await;
        }
        bar.finish_and_clear();
        ensure!(arrived == jobs as u64, "{arrived} deliveries arrived for {jobs} jobs");
        Ok(Row::new("deliver, a plugin in each group").rate(jobs, stopwatch.elapsed()).server(before, server.usage()))
    }
}

/// Calls one plugin repeatedly.
async fn warm(server: &Server) -> anyhow::Result<Row> {
    let (before, stopwatch) = (server.usage(), Stopwatch::start());
    let mut times = Vec::with_capacity(WARM_CALLS);
    simulate(server, &name(0)).await?;
    for _ in 0..WARM_CALLS {
        times.push(simulate(server, &name(0)).await?);
    }
    let row = Row::new("simulate, one plugin").rate(WARM_CALLS, stopwatch.elapsed());
    Ok(row.times(times).server(before, server.usage()))
}

/// Returns a payload that the signer can sign.
fn payload() -> Value {
    json!({"user": 7})
}

/// Simulates a delivery: three calls, the first of them of the group's own plugin.
async fn simulate(server: &Server, group: &str) -> anyhow::Result<Duration> {
    let job = json!({"job": {"url": "http://127.0.0.1:7071/", "payload": payload()}, "responses": [{"status": 200}]});
    let stopwatch = Stopwatch::start();
    let answer: Value = server.client().post(&["groups", group, "policy", "simulate"], &job).await?;
    let elapsed = stopwatch.elapsed();
    let outcome = &answer["attempts"][0]["verdict"]["outcome"];
    ensure!(outcome == "success", "the simulation of {group} ends with {outcome}");
    Ok(elapsed)
}

async fn bind(server: &Server, component: &[u8], number: usize, bar: &ProgressBar) -> anyhow::Result<()> {
    let name = name(number);
    let path = ["plugins", &name, "versions", env!("CARGO_PKG_VERSION")];
    server.client().put_component(&path, &[], renamed(component, &name), None).await?;
    server.client().put_group(&name, &json!({"sign": {"plugin": name, "keys": ["bench"]}}), None).await?;
    bar.inc(1);
    Ok(())
}

fn component() -> anyhow::Result<&'static [u8]> {
    let signer = carillon_default_plugins::ALL.iter().find(|plugin| plugin.name == SIGNER);
    Ok(signer.context("the signer is not among the plugins")?.component)
}

/// Returns a name with the length of the signer's own.
fn name(number: usize) -> String {
    format!("bench-{number:09}")
}

/// Returns the component with its name replaced everywhere by one of the same length.
fn renamed(component: &[u8], name: &str) -> Vec<u8> {
    let mut renamed = component.to_vec();
    for at in 0..renamed.len().saturating_sub(SIGNER.len()) {
        if renamed[at..].starts_with(SIGNER.as_bytes()) {
            renamed[at..at + SIGNER.len()].copy_from_slice(name.as_bytes());
        }
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plugin_is_other_code_of_the_same_length() {
        assert_eq!(name(0).len(), SIGNER.len());
        let (one, other) = (renamed(component().unwrap(), &name(1)), renamed(component().unwrap(), &name(2)));
        assert!(one != other && one.len() == other.len());
        assert!(!one.windows(SIGNER.len()).any(|text| text == SIGNER.as_bytes()));
    }
}
