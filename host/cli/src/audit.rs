//! `carillon audit`: reads and verifies the audit log.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::Value;

use super::{Paging, Session};
use carillon_client::answer::Answer;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, flatten_help = true)]
pub struct Audit {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify that entries are as they were written and that none is missing; requires the token of an operator.
    ///
    /// The command fails if it finds a fault.
    Verify,
}

/// Filter of entries.
#[derive(Debug, Args)]
struct Filter {
    /// Show only entries of this actor: the id of a token, or `system`, `configuration` or `anonymous`.
    #[arg(long, value_name = "ID")]
    actor: Option<String>,
    /// Show only entries with this verb, such as `key.put`.
    #[arg(long)]
    verb: Option<String>,
    /// Show only entries about this thing: `key`, or `key/stripe`.
    #[arg(long, value_name = "KIND[/NAME]")]
    object: Option<String>,
    /// Show only entries at this time or later, such as `2027-01-01T00:00:00Z`.
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Show only entries before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

const LIST: [(&str, &str); 11] = [
    ("AT", "/at"),
    ("ACTOR", "/actor"),
    ("NAME", "/name"),
    ("TENANT", "/tenant"),
    ("VERB", "/verb"),
    ("OBJECT", "/object"),
    ("VERSION", "/version"),
    ("OUTCOME", "/outcome"),
    ("COUNT", "/count"),
    ("CHANGED", "/changed"),
    ("ADDRESS", "/address"),
];

/// Fault in the log.
const BROKEN: [(&str, &str); 3] = [("NODE", "/node"), ("NUMBER", "/number"), ("FAULT", "/fault")];

/// Verification of the whole log.
#[derive(Serialize)]
struct Verified {
    verified: u64,
    broken: Vec<Value>,
}

impl Audit {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        if let Some(Command::Verify) = self.command {
            return verify(session).await;
        }
        let Filter { actor, verb, object, from, to } = self.filter;
        let filters = [("actor", actor), ("verb", verb), ("object", object), ("from", from), ("to", to)];
        let query = filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        session.list_as(&["audit"], query, &self.paging, &LIST, |entry| Ok(row(&entry))).await
    }
}

/// Makes the row of an entry.
fn row(entry: &Value) -> Value {
    let text = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str);
    let object = [text("/object/kind"), text("/object/name")].into_iter().flatten().collect::<Vec<_>>().join("/");
    let changed = entry["changed"].as_array().into_iter().flatten().filter_map(Value::as_str);
    serde_json::json!({
        "at": entry["at"],
        "actor": text("/actor/token").or(text("/actor/kind")),
        "name": text("/actor/name"),
        "tenant": entry["tenant"],
        "verb": entry["verb"],
        "object": object,
        "version": text("/object/version"),
        "outcome": entry["outcome"],
        "count": entry["count"],
        "changed": changed.collect::<Vec<_>>().join(" "),
        "address": entry["address"],
    })
}

async fn verify(session: &Session) -> anyhow::Result<()> {
    let (mut found, mut cursor) = (Verified { verified: 0, broken: Vec::new() }, None);
    loop {
        let query: Vec<_> = cursor.map(|cursor| ("cursor", cursor)).into_iter().collect();
        let part: Answer = session.client.get(&["audit", "verify"], &query).await?;
        found.verified += part["verified"].as_u64().unwrap_or_default();
        found.broken.extend(part["broken"].as_array().cloned().unwrap_or_default());
        cursor = part["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    let (count, faults) = (found.verified, found.broken.len());
    if faults == 0 {
        return session.done(&found, &format!("{count} entries verified: none is changed or missing"));
    }
    if session.out.is_json() {
        session.out.json(&found)?;
    } else {
        session.out.table(&BROKEN, &found.broken)?;
    }
    bail!("{faults} faults in {count} entries of the audit log")
}
