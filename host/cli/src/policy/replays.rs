//! Replays and backtests of finished attempts, on the command line.

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::super::Session;
use super::differences;
use carillon_client::answer::Answer;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Repeat the decisions about a recorded attempt and compare the results; nothing is sent.
    Replay {
        /// Id of the job.
        job: String,
        /// Number of the attempt.
        attempt: u32,
        /// Version of the group's policy to use. Default: the version that decided about the attempt.
        #[arg(long)]
        version: Option<i64>,
    },
    /// Repeat the decisions about a group's recorded attempts with a version of its policy, and show the differences; nothing is sent.
    Backtest {
        /// Name of the group.
        group: String,
        /// Number of the version.
        version: i64,
        /// Only jobs that were accepted at this time or later: RFC 3339.
        #[arg(long, value_name = "TIME")]
        created_from: Option<String>,
        /// Only jobs that were accepted before this time: RFC 3339.
        #[arg(long, value_name = "TIME")]
        created_before: Option<String>,
        /// Only attempts that began at this time or later: RFC 3339.
        #[arg(long, value_name = "TIME")]
        attempted_from: Option<String>,
        /// Only attempts that began before this time: RFC 3339.
        #[arg(long, value_name = "TIME")]
        attempted_before: Option<String>,
    },
}

/// Members of a replay that a record shows first.
const FIRST: [&str; 6] = ["version", "same", "different", "said", "shadow", "faults"];

/// Members that are summed over the responses.
const COUNTS: [&str; 6] = ["jobs", "attempts", "same", "uncertain", "fuel", "backtest_fuel"];

impl Command {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        match self {
            Self::Replay { job, attempt, version } => {
                let number = attempt.to_string();
                let path = ["jobs", &job, "attempts", &number, "replay"];
                let replayed: Answer = session.client.post(&path, &json!({ "version": version })).await?;
                session.out.answer_with(&FIRST, &replayed)
            }
            Self::Backtest { group, version, created_from, created_before, attempted_from, attempted_before } => {
                let asked = json!({ "version": version, "created_from": created_from, "created_before": created_before,
                    "attempted_from": attempted_from, "attempted_before": attempted_before });
                let tested = backtest(session, &group, asked).await?;
                if session.out.is_json() { session.out.json(&tested) } else { differences::show(session, &tested) }
            }
        }
    }
}

/// Merges all responses of a backtest into one.
async fn backtest(session: &Session, group: &str, mut asked: Value) -> anyhow::Result<Value> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} jobs, {eta} left")?;
    let bar = ProgressBar::no_length().with_style(style);
    let mut sum = Map::new();
    loop {
        let part: Value = session.client.post(&["groups", group, "policy", "backtest"], &asked).await?;
        if let Some(total) = part["total_jobs"].as_u64() {
            bar.set_length(total);
        }
        bar.inc(part["jobs"].as_u64().unwrap_or(0));
        add(&mut sum, &part);
        match &part["next_cursor"] {
            Value::Null => break,
            cursor => asked["cursor"] = cursor.clone(),
        }
    }
    bar.finish_and_clear();
    Ok(Value::Object(sum))
}

/// Adds the counts of a part to the sum of the earlier parts.
fn add(sum: &mut Map<String, Value>, part: &Value) {
    let plus = |one: &Value, other: &Value| Value::from(one.as_u64().unwrap_or(0) + other.as_u64().unwrap_or(0));
    sum.insert("version".to_owned(), part["version"].clone());
    for key in COUNTS {
        let count = plus(sum.get(key).unwrap_or(&Value::Null), &part[key]);
        sum.insert(key.to_owned(), count);
    }
    for key in ["different", "faults"] {
        let counts = sum.entry(key).or_insert_with(|| json!({}));
        for (what, count) in part[key].as_object().into_iter().flatten() {
            counts[what] = plus(&counts[what], count);
        }
    }
    for key in ["differences", "skipped"] {
        let list = sum.entry(key).or_insert_with(|| json!([]));
        if let (Some(list), Some(more)) = (list.as_array_mut(), part[key].as_array()) {
            list.extend(more.iter().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_added() {
        let part = |job: &str| {
            json!({"version": 2, "jobs": 1, "attempts": 3, "same": 1, "uncertain": 1, "fuel": 5, "backtest_fuel": 7,
                "different": {"judge": 2}, "faults": {job: 1}, "differences": [job], "skipped": []})
        };
        let mut sum = Map::new();
        add(&mut sum, &part("a"));
        add(&mut sum, &part("b"));
        let expected = json!({"version": 2, "jobs": 2, "attempts": 6, "same": 2, "uncertain": 2, "fuel": 10, "backtest_fuel": 14,
            "different": {"judge": 4}, "faults": {"a": 1, "b": 1}, "differences": ["a", "b"], "skipped": []});
        assert_eq!(Value::Object(sum), expected);
    }
}
