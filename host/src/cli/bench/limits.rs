//! What the same machine can do at best in the same run: the figures to compare the others with.

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use super::sink::Sink;
use super::{Bench, Row};
use crate::clock::Stopwatch;
use crate::config::{Config, Sources};
use crate::egress::Guard;
use crate::send;

/// Flushes of which the median counts.
const FLUSHES: usize = 101;

impl Bench {
    /// A loop around the deliveries' HTTP client, and a flush of the disk.
    pub(super) async fn limits(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let bar = self.bar("limits", self.jobs)?;
        let rows = vec![self.bare_loop(sink, &bar).await?, self.flush()?];
        bar.finish_and_clear();
        Ok(rows)
    }

    async fn bare_loop(&self, sink: &Sink, bar: &ProgressBar) -> anyhow::Result<Row> {
        let config = Config::load(Sources::default())?;
        let client = send::client(&config.delivery, &Arc::new(Guard::default()))?;
        let (left, body) = (Arc::new(AtomicUsize::new(self.jobs)), bytes::Bytes::from(vec![b'x'; self.payload_bytes]));
        let stopwatch = Stopwatch::start();
        let mut loops = JoinSet::new();
        for _ in 0..self.connections {
            let (client, url, left, body, bar) =
                (client.clone(), sink.url.clone(), Arc::clone(&left), body.clone(), bar.clone());
            loops.spawn(async move {
                let take = |left: usize| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    client.post(&url).body(body.clone()).send().await?.bytes().await?;
                    bar.inc(1);
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = loops.join_next().await {
            ended.context("a loop failed")??;
        }
        Ok(Row::new("limit: bare HTTP loop").rate(self.jobs, stopwatch.elapsed()))
    }

    /// What a commit waits for: with a disk that flushes quickly, durability costs little.
    fn flush(&self) -> anyhow::Result<Row> {
        let path = tempfile::Builder::new().prefix("carillon-bench-").tempdir_in(&self.dir)?;
        let mut file = File::create(path.path().join("flush"))?;
        let mut times = Vec::with_capacity(FLUSHES);
        for _ in 0..FLUSHES {
            let stopwatch = Stopwatch::start();
            file.write_all(&[0; 4096])?;
            file.sync_data()?;
            times.push(stopwatch.elapsed());
        }
        times.sort_unstable();
        Ok(Row::new("limit: flush of 4 KiB").figure("call_us", times[FLUSHES / 2].as_secs_f64() * 1e6))
    }
}
