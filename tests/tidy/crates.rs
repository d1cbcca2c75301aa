//! Which crate of the server imports which, and which third-party crates only some of them may use. docs/ARCHITECTURE.md says why.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use super::root;

/// Crates of the server, each with those that it may import.
const IMPORTS: [(&str, &[&str]); 16] = [
    ("core", &[]),
    ("config", &["core"]),
    ("store", &["core"]),
    ("store-sqlite", &["core", "store"]),
    ("store-postgres", &["core", "store"]),
    ("policy", &["core", "config"]),
    ("catalog", &["core", "store", "policy"]),
    ("telemetry", &["core", "store"]),
    ("engine", &["core", "config", "store", "policy", "catalog", "telemetry"]),
    ("api", &["core", "config", "store", "policy", "catalog", "telemetry", "engine"]),
    ("client", &[]),
    ("cli", &["core", "config", "policy", "client"]),
    ("bench", &["core", "config", "policy", "engine", "client", "cli"]),
    ("testing", &[]),
    ("protocol", &[]),
    (
        "carillon",
        &[
            "core",
            "config",
            "store",
            "store-sqlite",
            "store-postgres",
            "policy",
            "catalog",
            "telemetry",
            "engine",
            "api",
            "client",
            "cli",
            "bench",
        ],
    ),
];

/// Third-party crates that only some of ours may import.
const CONFINED: [(&str, &[&str]); 10] = [
    ("sqlx", &["store-sqlite", "store-postgres", "bench"]),
    ("wasmtime", &["policy"]),
    ("axum", &["api", "bench"]),
    ("tower-http", &["api"]),
    ("utoipa-axum", &["api"]),
    ("chacha20poly1305", &["catalog"]),
    ("prometheus-client", &["telemetry"]),
    ("plotters", &["bench"]),
    ("mimalloc", &["carillon"]),
    ("stateright", &["protocol"]),
];

/// The crates of the server by the names of their folders, each with what it imports outside of tests.
fn imports() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let host = root().canonicalize().unwrap().join("host");
    let packages = metadata["packages"].as_array().unwrap();
    let of_host = packages.iter().filter_map(|package| {
        let manifest = std::path::Path::new(package["manifest_path"].as_str()?);
        let folder = manifest.strip_prefix(&host).ok()?.parent()?.to_str()?.to_owned();
        let normal = package["dependencies"].as_array()?.iter().filter(|dependency| dependency["kind"].is_null());
        let is_needed = |dependency: &&Value| dependency["optional"] == false;
        let names = normal.filter(is_needed).map(|dependency| dependency["name"].as_str().unwrap().to_owned());
        Some((folder, names.collect()))
    });
    of_host.collect()
}

fn our_folder(package: &str) -> Option<&str> {
    let folder = package.strip_prefix("carillon-")?;
    IMPORTS.iter().find(|(known, _)| *known == folder).map(|(known, _)| *known)
}

#[test]
fn crates_import_only_those_below_them() {
    let imports = imports();
    let folders: Vec<_> = imports.keys().map(String::as_str).collect();
    let mut known: Vec<_> = IMPORTS.map(|(folder, _)| folder).into();
    known.sort_unstable();
    assert_eq!(folders, known, "the table names all crates");
    for (folder, allowed) in IMPORTS {
        for import in imports[folder].iter().filter_map(|package| our_folder(package)) {
            assert!(allowed.contains(&import), "`{folder}` must not import `{import}`");
        }
    }
}

#[test]
fn third_party_crates_are_used_where_they_belong() {
    for (folder, imports) in imports() {
        for (name, allowed) in CONFINED {
            let is_used = imports.iter().any(|import| import == name);
            assert!(!is_used || allowed.contains(&folder.as_str()), "`{folder}` must not use {name}");
        }
    }
}

#[test]
fn tests_optimize_no_crate_of_the_server() {
    let settings = std::fs::read_to_string(root().join(".config/unoptimized.toml")).unwrap();
    let named: Vec<_> =
        settings.lines().filter_map(|line| line.strip_prefix("[profile.release.package.")?.strip_suffix(']')).collect();
    // The model is no part of the server, and its tests do nothing but compute.
    let server = IMPORTS.iter().filter(|(folder, _)| *folder != "protocol");
    for (folder, _) in server.clone() {
        let folder = *folder;
        let package = if folder == "carillon" { folder.to_owned() } else { format!("carillon-{folder}") };
        assert!(named.contains(&package.as_str()), ".config/unoptimized.toml does not name {package}");
    }
    assert_eq!(named.len(), server.count(), "{named:?}");
}

#[test]
fn the_native_api_knows_of_no_other() {
    for source in super::sources("host/api/src/v1", &[".rs"]) {
        assert!(!source.product().contains("compat::"), "{}: `v1` must not import `compat`", source.path);
    }
}
