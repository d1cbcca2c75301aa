//! Plugins of tenants: begun, built and uploaded as their authors do it.

use std::path::{Path, PathBuf};

use axum::body::Bytes;
use carillon_guest_build::{BuildRequest, build};
use reqwest::Method;
use tokio::process::Command;

use super::{Api, Reply, interpreter, repository, run, shared_dir};

/// The roles of plugins.
pub const ROLES: [&str; 5] = ["encode", "sign", "judge", "retry", "observe"];

/// Where tests upload the judge of `examples/judge-json-ok`.
pub const JUDGE_PATH: &str = "/v1/plugins/judge-json-ok/versions/0.1.0";

/// The component of `examples/judge-json-ok`.
pub async fn judge() -> Bytes {
    built_guest("examples/judge-json-ok").await
}

/// Uploads a component; any answer will do.
pub async fn upload(api: &Api, path: &str, component: impl Into<Bytes>) -> Reply {
    let request = api.request(Method::PUT, path).header("content-type", "application/wasm");
    api.send(request.body(component.into())).await
}

/// Builds a plugin in Rust from its directory in the repository, and uploads it as version 0.1.0.
pub async fn upload_built(api: &Api, directory: &str, name: &str) {
    let component = built_guest(directory).await;
    upload(api, &format!("/v1/plugins/{name}/versions/0.1.0"), component).await.ok();
}

async fn built_guest(directory: &str) -> Bytes {
    let request = BuildRequest {
        manifest_dir: repository().join(directory),
        target_dir: shared_dir().join("guests"),
        toolchain: None,
    };
    let built = tokio::task::spawn_blocking(move || build(&request)).await.unwrap();
    built.unwrap_or_else(|error| panic!("{directory} does not build: {error}")).into()
}

/// A plugin as `carillon plugin new` makes it, not built yet.
pub async fn scaffold(parent: &Path, name: &str, role: &str) -> PathBuf {
    let arguments = ["plugin", "new", name, "--role", role, "--in", parent.to_str().unwrap()];
    run(&arguments, &[], "").await.ok();
    parent.join(name)
}

/// Where what the crates of scaffolds have in common is compiled once.
pub fn beside_others() -> PathBuf {
    shared_dir().join("scaffolds")
}

/// What `carillon plugin build` makes of a directory, with the tools that `script/bootstrap test` installs.
pub async fn built(directory: &Path) -> Bytes {
    let name = directory.file_name().unwrap().to_str().unwrap();
    let file = shared_dir().join(format!("{name}-{}.wasm", std::process::id()));
    let tools = interpreter().parent().unwrap().display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_carillon"))
        .args(["plugin", "build"])
        .arg(directory)
        .arg("--target-dir")
        .arg(shared_dir().join("guests"))
        .arg("-o")
        .arg(&file)
        .env("PATH", format!("{tools}:{}", std::env::var("PATH").unwrap()))
        .env("CARILLON_POLICY__COMPILE_TIMEOUT", "5m")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\nwhat is missing comes with `script/bootstrap test`");
    let component = std::fs::read(&file).unwrap().into();
    std::fs::remove_file(file).unwrap();
    component
}
