//! Memory and processor time of an idle server, with and without waiting jobs.

use std::time::Duration;

use super::server::Server;
use super::sink::Sink;
use super::{Bench, Row};

/// Time after which the effects of earlier work are over: loops, checkpoints, memory that is given back.
const REST: Duration = Duration::from_secs(3);

/// Duration of the measurement.
const WATCHED: Duration = Duration::from_secs(10);

impl Bench {
    /// Measures a server without waiting jobs, and then one with `--waiting` jobs.
    pub(super) async fn idle(&self, sink: &Sink) -> anyhow::Result<Vec<Row>> {
        let server = self.server().await?;
        let mut rows = vec![watched(&server, Row::new("idle")).await?];
        if self.waiting > 0 {
            self.wait_behind(&server, sink).await?;
            rows.push(watched(&server, Row::new("idle, jobs wait").count(self.waiting)).await?);
        }
        Ok(rows)
    }
}

async fn watched(server: &Server, row: Row) -> anyhow::Result<Row> {
    tokio::time::sleep(REST).await;
    let before = server.usage();
    tokio::time::sleep(WATCHED).await;
    let after = server.usage();
    let percent = 100.0 * (after.cpu - before.cpu) / WATCHED.as_secs_f64();
    Ok(row.server(before, after).figure("server_cpu_percent", percent))
}
