//! Plugins with several roles: the SDK's `export!`, the build and the component's type fit together for every mix.

use std::fs;
use std::path::{Path, PathBuf};

use carillon_guest_build::{BuildRequest, build};
use wit_component::WitPrinter;

const SOURCE: &str = r#"
use carillon_policy_sdk::*;

struct All;

#[derive(serde::Deserialize)]
struct Config {}

impl Plugin for All {
    type Config = Config;
    const NAME: &'static str = "all";
    const VERSION: &'static str = "0.1.0";
    const SUMMARY: &'static str = "Plays every role.";
    const CONFIG_SCHEMA: &'static str = "{}";
}
impl Encode for All {
    fn encode(_: &Attempt, _: &Config, request: Request) -> Result<Request, Failure> {
        Ok(request)
    }
}
impl Sign for All {
    fn sign(_: &Attempt, _: &Config, request: Request, keys: &[&dyn Key]) -> Result<Signed, Failure> {
        let key = keys.first().ok_or_else(|| Failure::config("no-key", "no key"))?;
        Ok(Signed { headers: Vec::new(), body: Some(key.mac(Mac::HmacSha256, &request.body)?) })
    }
}
impl Judge for All {
    fn judge(_: &Attempt, _: &Config, _: Exchange) -> Result<Verdict, Failure> {
        Ok(Verdict::success("fine"))
    }
}
impl Retry for All {
    fn next(_: &Attempt, _: &Config, verdict: &Verdict, _: &[Past]) -> Result<Decision, Failure> {
        Ok(Decision::GiveUp(verdict.reason.clone()))
    }
}
impl Observe for All {
    fn observe(_: &Config, events: &[Event]) {
        log::info(&events.len().to_string());
    }
}
"#;

/// Writes a crate that exports these roles. It lies in the target directory, so that a second run is quick.
fn write_crate(roles: &str) -> PathBuf {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("roles");
    let manifest = format!(
        "[package]\nname = \"roles\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n[lib]\ncrate-type = [\"cdylib\"]\n\
         [dependencies]\nserde = {{ version = \"1\", features = [\"derive\"] }}\ncarillon-policy-sdk = {{ path = '{}' }}\n",
        repository.join("plugins/sdk").display()
    );
    fs::create_dir_all(directory.join("src")).expect("a directory");
    fs::write(directory.join("Cargo.toml"), manifest).expect("a manifest");
    fs::copy(repository.join("Cargo.lock"), directory.join("Cargo.lock")).expect("a lock file");
    fs::write(directory.join("src/lib.rs"), format!("{SOURCE}\nexport!(All: {roles});\n")).expect("a source");
    directory
}

/// The interfaces that a component exports.
fn exports(component: &[u8]) -> Vec<String> {
    let decoded = wit_component::decode(component).expect("a component");
    let mut printer = WitPrinter::default();
    printer.print(decoded.resolve(), decoded.package(), &[]).expect("WIT");
    let wit = printer.output.to_string();
    let name =
        |line: &str| Some(line.trim().strip_prefix("export carillon:policy/")?.strip_suffix("@0.1.0;")?.to_owned());
    let mut names: Vec<String> = wit.lines().filter_map(name).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_plugin_exports_the_roles_it_lists_in_any_mix() {
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("roles-target");
    for roles in
        ["encode, sign, judge, retry, observe", "judge, retry", "retry, judge", "retry, observe", "judge", "sign"]
    {
        let request =
            BuildRequest { manifest_dir: write_crate(roles), target_dir: target_dir.clone(), toolchain: None };
        let component = build(&request).unwrap_or_else(|error| panic!("{roles}: {error}"));
        let mut expected: Vec<&str> = roles.split(", ").chain(["meta"]).collect();
        expected.sort_unstable();
        assert_eq!(exports(&component), expected, "{roles}");
    }
}
