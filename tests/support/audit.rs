//! Reads of the audit log.

use serde_json::Value;

use crate::support::Api;
use crate::support::scenes::all;

/// The newest entry of the log.
pub async fn newest(api: &Api) -> Value {
    api.get("/v1/audit?limit=1").await.items().remove(0)
}

/// The entries that are newer than one.
pub async fn since(api: &Api, entry: &Value) -> Vec<Value> {
    let entries = all_entries(api).await;
    entries.into_iter().take_while(|newer| newer["id"] != entry["id"]).collect()
}

/// All entries that the client sees, the newest first.
pub async fn all_entries(api: &Api) -> Vec<Value> {
    all(api, "/v1/audit").await
}

/// The verbs of entries.
pub fn verbs(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["verb"].as_str().unwrap()).collect()
}
