//! The build as its users see it: a crate on disk becomes a component.

use std::fs;
use std::path::{Path, PathBuf};

use super::{BuildError, BuildRequest, Toolchain, build, has_guest_profile, module_path};

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
    assert!(matches!(build(&request(root.path())), Err(BuildError::Cargo { .. })));
    assert!(matches!(build(&request(&root.path().join("nowhere"))), Err(BuildError::NotACrate { .. })));
}

#[test]
fn every_error_says_what_to_do() {
    let text = BuildError::NoToolchain.to_string();
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
    assert!(has_guest_profile(&manifest));
    fs::write(&manifest, "[workspace]\n[profile.guest.package.x]\n").expect("a manifest");
    assert!(!has_guest_profile(&manifest));
}

#[test]
fn an_installed_toolchain_is_found() {
    assert!(Toolchain::choose(Path::new(env!("CARGO_MANIFEST_DIR"))).is_ok());
}
