//! `carillon lease`: lets a consumer work on jobs without a URL.

use clap::Subcommand;
use serde_json::json;

use super::Session;
use carillon_client::answer::Answer;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lease jobs of a group.
    Take {
        /// Name of the group.
        group: String,
        /// Maximum number of jobs.
        #[arg(long, default_value_t = 1)]
        max: u32,
        /// Duration of each lease.
        #[arg(long, default_value = "30s", value_name = "PERIOD")]
        lease: String,
        /// Maximum time to wait for the first job.
        #[arg(long, default_value = "0s", value_name = "PERIOD")]
        wait: String,
    },
    /// Extend a lease.
    Extend {
        /// Token of the lease.
        #[arg(value_name = "TOKEN")]
        ticket: String,
        /// Duration of the lease from now.
        #[arg(long, default_value = "30s", value_name = "PERIOD")]
        lease: String,
    },
    /// Report that the job succeeded.
    Complete {
        /// Token of the lease.
        #[arg(value_name = "TOKEN")]
        ticket: String,
    },
    /// Report that the job failed; the group's retry policy decides what follows.
    Fail {
        /// Token of the lease.
        #[arg(value_name = "TOKEN")]
        ticket: String,
        /// Description of the error.
        #[arg(long)]
        error: Option<String>,
        /// Do not retry the job.
        #[arg(long)]
        permanent: bool,
        /// Minimum time until the next attempt.
        #[arg(long, value_name = "PERIOD")]
        retry_after: Option<String>,
    },
    /// Return the job without an attempt, so that it is available again.
    Release {
        /// Token of the lease.
        #[arg(value_name = "TOKEN")]
        ticket: String,
    },
}

const LEASES: [(&str, &str); 7] = [
    ("TOKEN", "/token"),
    ("JOB", "/job/id"),
    ("NAME", "/job/name"),
    ("ATTEMPT", "/attempt"),
    ("ENDS", "/expires_at"),
    ("PAYLOAD", "/payload"),
    ("TEXT", "/payload_text"),
];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let client = &session.client;
        let (ticket, verb, body) = match self {
            Self::Take { group, max, lease, wait } => {
                let ask = json!({"max": max, "lease": lease, "wait": wait});
                let taken: Answer = client.post(&["groups", &group, "leases"], &ask).await?;
                if session.out.is_json() {
                    return session.out.json(&taken);
                }
                return session.out.table(&LEASES, &taken.list("/leases"));
            }
            Self::Extend { ticket, lease } => {
                let extended: Answer = client.post(&["leases", &ticket, "extend"], &json!({"lease": lease})).await?;
                let until = extended["expires_at"].as_str().unwrap_or_default().to_owned();
                return session.done(&extended, &format!("lease ends at {until}"));
            }
            Self::Complete { ticket } => (ticket, "complete", json!({})),
            Self::Fail { ticket, error, permanent, retry_after } => {
                let said = json!({"error": error, "permanent": permanent, "retry_after": retry_after});
                (ticket, "fail", said)
            }
            Self::Release { ticket } => (ticket, "release", json!({})),
        };
        let ended: Answer = client.post(&["leases", &ticket, verb], &body).await?;
        let state = ended["state"].as_str().unwrap_or_default();
        let next = ended["next_run_at"].as_str().map(|at| format!(", due {at}")).unwrap_or_default();
        session.done(&ended, &format!("{state}{next}"))
    }
}
