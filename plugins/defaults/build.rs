//! Builds the default plugins. The nested cargo has a target directory of its own, which makes a second build quick. It is beside those of the
//! build scripts, because clippy has another `OUT_DIR` for this one.

use std::path::{Path, PathBuf};
use std::{env, fs};

use carillon_guest_build::{BuildRequest, build};

/// The directories of the default plugins.
const PLUGINS: [&str; 6] =
    ["backoff", "base64-envelope", "expected-status", "hmac", "standard-webhooks", "werkzeug-cookie"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plugins = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let guests = out.ancestors().nth(2).unwrap_or(&out).join("guests");
    rerun_if_changed(&plugins);
    for name in PLUGINS {
        let request = BuildRequest { manifest_dir: plugins.join(name), target_dir: guests.clone(), toolchain: None };
        fs::write(out.join(name).with_extension("wasm"), build(&request)?)?;
    }
    Ok(())
}

/// Everything that a component is made of.
fn rerun_if_changed(plugins: &Path) {
    let changed = |path: &Path| println!("cargo::rerun-if-changed={}", path.display());
    for name in PLUGINS {
        for part in ["src", "Cargo.toml", "config.schema.json"] {
            changed(&plugins.join(name).join(part));
        }
    }
    for part in
        ["sdk/src", "sdk/Cargo.toml", "sdk/pair", "../wit", "../Cargo.toml", "../Cargo.lock", "defaults/build.rs"]
    {
        changed(&plugins.join(part));
    }
    println!("cargo::rerun-if-env-changed=CARILLON_GUEST_TOOLCHAIN");
}
