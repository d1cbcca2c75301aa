//! The build as its users see it: a crate on disk becomes a component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::rust::{has_guest_profile, module_path};
use super::tool::Tool;
use super::{BuildError, BuildRequest, Target, Toolchain, build};

fn write_crate(directory: &Path, crate_type: &str, source: &str) {
    let manifest = format!(
        "[package]\nname = \"tiny-guest\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"{crate_type}\"]\n[workspace]\n"
    );
    fs::create_dir_all(directory.join("src")).expect("a directory");
    fs::write(directory.join("Cargo.toml"), manifest).expect("a manifest");
    fs::write(directory.join("src/lib.rs"), source).expect("a source");
}

fn request(directory: &Path) -> BuildRequest {
    BuildRequest { manifest_dir: directory.to_owned(), target_dir: directory.join("target"), toolchain: None }
}

#[test]
fn two_directories_give_the_same_bytes_and_name_neither() {
    let source = "#[unsafe(no_mangle)] pub extern \"C\" fn cabi_hint(x: &[u8; 4], i: usize) -> u8 { x[i] }";
    let root = tempfile::tempdir().expect("a directory");
    let components: Vec<Vec<u8>> = ["one", "another directory"]
        .iter()
        .map(|name| {
            let directory = root.path().join(name);
            write_crate(&directory, "cdylib", source);
            build(&request(&directory)).expect("a component")
        })
        .collect();
    assert_eq!(components[0], components[1]);
    let name = root.path().to_string_lossy().into_owned();
    assert!(!components[0].windows(name.len()).any(|window| window == name.as_bytes()));
}

#[test]
fn a_crate_without_a_module_is_told_what_to_add() {
    let root = tempfile::tempdir().expect("a directory");
    write_crate(root.path(), "rlib", "");
    let error = build(&request(root.path())).expect_err("no module");
    assert!(matches!(&error, BuildError::NoModule(_)), "{error}");
    assert!(error.to_string().contains("cdylib"));
}

#[test]
fn what_does_not_compile_and_what_is_not_there_are_errors() {
    let root = tempfile::tempdir().expect("a directory");
    write_crate(root.path(), "cdylib", "fn");
    assert!(matches!(build(&request(root.path())), Err(BuildError::Compiler { .. })));
    assert!(matches!(build(&request(&root.path().join("nowhere"))), Err(BuildError::NotADirectory { .. })));
}

#[test]
fn every_error_says_what_to_do() {
    let text = BuildError::NoToolchain("wasm32-unknown-unknown").to_string();
    for command in ["script/bootstrap", "rustup target add", "apt-get install"] {
        assert!(text.contains(command), "{text}");
    }
}

#[test]
fn the_module_is_found_by_its_manifest() {
    let messages = r#"{"reason":"compiler-artifact","manifest_path":"/a/dep/Cargo.toml","filenames":["/t/dep.wasm"]}
not json
{"reason":"compiler-artifact","manifest_path":"/a/guest/Cargo.toml","filenames":["/t/libguest.rlib","/t/guest.wasm"]}
{"reason":"build-finished","success":true}"#;
    assert_eq!(module_path(messages, Path::new("/a/guest")), Some(PathBuf::from("/t/guest.wasm")));
    assert_eq!(module_path(messages, Path::new("/a/other")), None);
}

#[test]
fn a_workspace_may_bring_its_own_profile() {
    let root = tempfile::tempdir().expect("a directory");
    let manifest = root.path().join("Cargo.toml");
    fs::write(&manifest, "[workspace]\n[profile.guest]\ninherits = \"release\"\n").expect("a manifest");
    assert!(has_guest_profile(root.path()));
    fs::write(&manifest, "[workspace]\n[profile.guest.package.x]\n").expect("a manifest");
    assert!(!has_guest_profile(root.path()));
}

#[test]
fn an_installed_toolchain_is_found() {
    assert!(Toolchain::choose(Path::new(env!("CARGO_MANIFEST_DIR")), Target::Unknown).is_ok());
}

/// Builds a directory of these files, which must fail; what it says.
fn refused(files: &[(&str, &str)]) -> (BuildError, String) {
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("plugin");
    fs::create_dir(&directory).expect("a directory");
    for (name, text) in files {
        fs::write(directory.join(name), text).expect("a file");
    }
    let request = BuildRequest { manifest_dir: directory, target_dir: root.path().join("target"), toolchain: None };
    let error = build(&request).expect_err("no component");
    let said = error.to_string();
    (error, said)
}

const JUDGE: &str = "package local:plugin; world plugin { include carillon:policy/judge-policy@0.1.0; }";

#[test]
fn what_other_languages_lack_is_said() {
    let (error, said) = refused(&[("policy.c", "")]);
    assert!(
        matches!(error, BuildError::NoWorld(_)) && said.contains("include carillon:policy/judge-policy@0.1.0"),
        "{said}"
    );
    let (error, said) = refused(&[("policy.c", ""), ("policy.wit", &JUDGE.replace("judge-policy", "jury-policy"))]);
    assert!(matches!(error, BuildError::World(_)) && said.contains("jury-policy"), "{said}");
    let (error, said) = refused(&[("a.py", ""), ("b.py", ""), ("policy.wit", JUDGE)]);
    assert!(matches!(error, BuildError::NoMain { .. }) && said.contains("policy.py"), "{said}");
    let (error, said) = refused(&[("package.json", r#"{"main": "judge.js"}"#), ("policy.wit", JUDGE)]);
    assert!(matches!(error, BuildError::NoMain { .. }) && said.contains("judge.js"), "{said}");
    let (error, said) = refused(&[("package.json", "{}"), ("policy.js", ""), ("policy.wit", JUDGE)]);
    assert!(matches!(error, BuildError::NoPackages(_)) && said.contains("npm ci"), "{said}");
    assert!(matches!(refused(&[("package.json", "{"), ("policy.wit", JUDGE)]).0, BuildError::Read { .. }));
}

#[test]
fn what_clang_refuses_is_no_component() {
    let (error, said) = refused(&[("policy.c", "#include \"policy.h\"\nint"), ("policy.wit", JUDGE)]);
    assert!(matches!(error, BuildError::Compiler { .. }) && said.contains("`clang` could not build"), "{said}");
    // Everything compiles, but nothing is defined.
    assert!(matches!(refused(&[("policy.c", ""), ("policy.wit", JUDGE)]).0, BuildError::Compiler { .. }));
}

#[test]
fn what_is_not_installed_is_said_with_the_way_to_get_it() {
    let tool = Tool { name: "no-such-program", install: "get it from somewhere" };
    let error = tool.run(&mut Command::new("no-such-program"), Path::new(".")).expect_err("no program");
    assert!(
        matches!(error, BuildError::Start { .. }) && error.to_string().contains("get it from somewhere"),
        "{error}"
    );
}
