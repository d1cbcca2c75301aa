//! `carillon plugin inspect`: shows all facts about a component, and whether a server would accept it.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::super::local::NOBODY;
use super::super::{Session, input};
use super::anatomy::Anatomy;
use super::{Reference, Version, describe, download, runtime};
use carillon_core::clock::Stopwatch;
use carillon_policy::golden::embedded;
use carillon_policy::{CompileBudget, Digest, Plugin, Runtime, examine};

#[derive(Debug, Args)]
#[command(
    after_long_help = "The component is loaded as an upload would load it, on this machine and with the limits of its configuration.

Exits with 1 if a server would refuse the component; what is known about it is printed in any case."
)]
pub struct Inspect {
    /// NAME, NAME@VERSION, or a local component: a path that contains `/` or ends in `.wasm`.
    plugin: Reference,
}

const INTERFACES: [(&str, &str); 2] = [("", "/way"), ("INTERFACE", "/name")];
const PRODUCERS: [(&str, &str); 3] = [("MADE BY", "/name"), ("VERSION", "/version"), ("AS", "/field")];
const TESTS: [(&str, &str); 2] = [("GOLDEN TEST", "/name"), ("ROLE", "/role")];

impl Inspect {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let is_new = self.plugin.is_file();
        let component = Bytes::from(component(session, self.plugin).await?);
        let mut shown = written(&component);
        let loading = async {
            let runtime = runtime()?;
            let plugin = load(&runtime, &component, &mut shown).await?;
            // A server has examined a component that it has already.
            if is_new {
                examine(&runtime, NOBODY, &plugin, &component).await?;
            }
            anyhow::Ok(())
        };
        let refused = loading.await.err().map(|error| format!("{error:#}"));
        shown["refused"] = refused.clone().into();
        show(session, shown)?;
        match refused {
            None => Ok(()),
            Some(why) => bail!("a server would refuse the component: {why}"),
        }
    }
}

/// Returns the bytes of the component.
async fn component(session: &Session, plugin: Reference) -> anyhow::Result<Vec<u8>> {
    if plugin.is_file() {
        return input::bytes(Path::new(&plugin.name));
    }
    let version = match plugin.version {
        Some(version) => version,
        None => {
            let newest: Value = session.client.get(&["plugins", &plugin.name], &[]).await?;
            newest["version"].as_str().unwrap_or_default().to_owned()
        }
    };
    download(session, &Version { name: plugin.name, version }).await
}

/// Returns the facts that are known before the component is compiled.
fn written(component: &[u8]) -> Value {
    let anatomy = Anatomy::from_component(component);
    let producer = |[field, name, version]: &[String; 3]| json!({ "field": field, "name": name, "version": version });
    let producers: Vec<_> = anatomy.producers.iter().map(producer).collect();
    let tests = embedded(component).unwrap_or_default();
    let tests: Vec<_> = tests.iter().map(|test| json!({ "name": test.name, "role": test.test.get("role") })).collect();
    json!({
        "digest": Digest::from_bytes(component),
        "size": component.len(),
        "imports": anatomy.imports,
        "exports": anatomy.exports,
        "producers": producers,
        "core_modules": anatomy.core_modules,
        "memory_minimum": anatomy.memory,
        "table_minimum": anatomy.table_elements,
        "golden_tests": tests,
        "unread": anatomy.unread,
    })
}

/// Loads a component as an upload would do, and records the result.
async fn load(runtime: &Runtime, component: &Bytes, shown: &mut Value) -> anyhow::Result<Arc<Plugin>> {
    let stopwatch = Stopwatch::start();
    let plugin: Arc<Plugin> = runtime.registry.admit(NOBODY, CompileBudget::UNBOUNDED, component).await?.plugin;
    shown["compile_millis"] = u64::try_from(stopwatch.elapsed().as_millis()).unwrap_or(u64::MAX).into();
    shown["native_size"] = plugin.code_size().into();
    shown["engine"] = if plugin.is_large() { "large" } else { "small" }.into();
    shown["roles"] = json!(plugin.roles());
    let (said, usage) = describe(runtime, &plugin)?;
    shown["describe_memory"] = usage.memory.into();
    shown["memory_limit"] = plugin.limits(&runtime.limits).memory.into();
    shown["config_schema"] = serde_json::from_str(&said.config_schema).unwrap_or(Value::String(said.config_schema));
    for (key, text) in [("name", said.name), ("version", said.version), ("summary", said.summary)] {
        shown[key] = text.into();
    }
    Ok(plugin)
}

fn show(session: &Session, mut shown: Value) -> anyhow::Result<()> {
    if session.out.is_json() {
        return session.out.json(&shown);
    }
    let mut interfaces = Vec::new();
    for (key, way) in [("imports", "import"), ("exports", "export")] {
        let names = shown[key].take();
        interfaces.extend(names.as_array().into_iter().flatten().map(|name| json!({ "way": way, "name": name })));
    }
    let (producers, tests) = (shown["producers"].take(), shown["golden_tests"].take());
    let tables = [
        (&INTERFACES[..], interfaces),
        (&PRODUCERS[..], producers.as_array().cloned().unwrap_or_default()),
        (&TESTS[..], tests.as_array().cloned().unwrap_or_default()),
    ];
    session.out.answer(&shown)?;
    for (columns, rows) in tables.into_iter().filter(|(_, rows)| !rows.is_empty()) {
        session.out.line("")?;
        session.out.table(columns, &rows)?;
    }
    Ok(())
}
