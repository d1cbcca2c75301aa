//! What a server takes that has nothing to do: memory and processor time, with and without jobs that wait.

use std::time::Duration;

use super::server::Server;
use super::sink::Sink;
use super::{Bench, Row};

/// What came before is over after so long: loops, checkpoints, memory that is given back.
const REST: Duration = Duration::from_secs(3);

/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(10);

impl Bench {
    /// Nothing waits, and then `--waiting` jobs do.
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
