//! What `carillon plugin new` makes in other languages than Rust builds and passes its golden tests.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{ROLES, built, repository, run};

/// A plugin as it is made, not built yet.
async fn scaffold(parent: &Path, role: &str, language: &str) -> PathBuf {
    let name = format!("my-{role}");
    let parent_text = parent.to_str().unwrap();
    run(&["plugin", "new", &name, "--role", role, "--lang", language, "--in", parent_text], &[], "").await.ok();
    parent.join(name)
}

/// The golden tests of a directory, run on a component.
async fn tested(component: &[u8], tests: &Path) -> String {
    let file = tempfile::NamedTempFile::with_suffix(".wasm").unwrap();
    std::fs::write(file.path(), component).unwrap();
    run(&["plugin", "test", file.path().to_str().unwrap(), tests.to_str().unwrap()], &[], "").await.ok().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_plugin_of_each_role_in_c_builds_and_passes_its_tests() {
    let parent = tempfile::tempdir().unwrap();
    for role in ROLES {
        let directory = scaffold(parent.path(), role, "c").await;
        let component = built(&directory).await;
        assert!(component.len() < 64 << 10, "{} bytes", component.len());
        assert!(tested(&component, &directory.join("golden")).await.contains("ok    first"), "{role}");
        let again = built(&directory).await;
        assert_eq!(component, again, "the same bytes each time");
    }
}

/// The new plugins of all roles as one, since each would have a runtime of its own to build, with their tests in it.
async fn bundle(language: &str, extension: &str, main: &str) {
    let parent = tempfile::tempdir().unwrap();
    let all = parent.path().join(format!("all-in-{language}"));
    std::fs::create_dir_all(all.join("golden")).unwrap();
    for role in ROLES {
        let one = scaffold(parent.path(), role, language).await;
        let copy = |from: &str, to: String| std::fs::copy(one.join(from), all.join(to)).unwrap();
        copy(&format!("policy.{extension}"), format!("{role}_role.{extension}"));
        copy("golden/first.json", format!("golden/{role}.json"));
        let world = std::fs::read_to_string(one.join("policy.wit")).unwrap();
        std::fs::write(all.join("policy.wit"), world.replace(&format!("{role}-policy@"), "bundle@")).unwrap();
        if language == "js" {
            copy("package.json", "package.json".to_owned());
        }
    }
    if language == "js" {
        let installed = repository().join("examples/judge-json-ok-js/node_modules").canonicalize().unwrap();
        std::os::unix::fs::symlink(installed, all.join("node_modules")).unwrap();
    }
    std::fs::write(all.join(format!("policy.{extension}")), main).unwrap();
    let component = built(&all).await;
    let embedded = carillon_policy::golden::embedded(&component).unwrap();
    assert_eq!(embedded.len(), ROLES.len(), "they are in it, and were run by the build");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_plugin_of_each_role_in_javascript_builds_and_passes_its_tests() {
    let roles: String = ROLES.iter().map(|role| format!("export {{ {role} }} from './{role}_role.js';\n")).collect();
    let meta = "export const meta = {
        describe: () => ({ name: 'all', version: '0.1.0', summary: 'All roles.', configSchema: '{}' }),
        check: () => {},
    };";
    bundle("js", "js", &(roles + meta)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_plugin_of_each_role_in_python_builds_and_passes_its_tests() {
    let class = |role: &str| role[..1].to_uppercase() + &role[1..];
    let roles: String = ROLES.iter().map(|role| format!("from {role}_role import {}\n", class(role))).collect();
    let meta = "
from wit_world import exports
from wit_world.exports.meta import Description
class Meta(exports.Meta):
    def describe(self):
        return Description('all', '0.1.0', 'All roles.', '{}')
    def check(self, config):
        pass
";
    bundle("python", "py", &(roles + meta)).await;
}

/// Texts that are JSON, that nearly are, and what is left of them when they break off.
fn texts() -> Vec<String> {
    let whole = [
        r#"{"s": "a\"\\\/\b\f\n\r\t\u00e9\u20ac\ud83d\ude00 grüße", "n": -12}"#,
        r#" [1, 2.5, -0.1e+3, 1E2, true, false, null, {}, [], "", {"a": {"b": [0]}}] "#,
        r#"{"n": 9223372036854775807, "s": "", "n": -9223372036854775808}"#,
        r#"{"n": 9223372036854775808, "\u0073": "by an escape"}"#,
    ];
    let wrong = [
        "",
        " ",
        "nul",
        "tru",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "--1",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{a: 1}",
        "{\"a\": 1,}",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\u{1}\"",
        "1 1",
        "]",
        "}",
        "[1}",
        "{\"s\": \"a\u{0}\"}",
        "{\"n\": 1.5}",
        "{\"n\": \"1\", \"s\": 2}",
        "{\"ns\": 1, \"x\": {\"n\": 3}}",
    ];
    let mut texts: Vec<String> = wrong.map(str::to_owned).into();
    for text in whole {
        texts.extend((0..=text.len()).filter(|end| text.is_char_boundary(*end)).map(|end| text[..end].to_owned()));
    }
    texts.push(format!("{}{}", "[".repeat(60), "]".repeat(60)));
    texts.push("[".repeat(60));
    // More than the memory that an instance begins with.
    texts.push(format!(r#"{{"x": "{}", "n": 7}}"#, "a".repeat(300_000)));
    texts
}

/// What the plugin is to make of a text, by another reader of JSON.
fn expected(text: &str) -> Value {
    let read: Option<Value> = serde_json::from_str(text).ok();
    let (words, number) = read.as_ref().map_or((None, None), |read| (read["s"].as_str(), read["n"].as_i64()));
    let number = number.map(|number| number.to_string()).unwrap_or_default();
    let reason = format!("s={} n={number}", hex::encode(words.unwrap_or_default()));
    json!({"outcome": if read.is_some() { "success" } else { "retryable" }, "reason": reason})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reader_of_json_for_c_reads_what_another_one_reads() {
    let component = built(&repository().join("tests/guests/json-c")).await;
    let tests = tempfile::tempdir().unwrap();
    let texts = texts();
    for (number, text) in texts.iter().enumerate() {
        let test =
            json!({"role": "judge", "input": {"response": {"status": 200, "body": text}}, "answer": expected(text)});
        std::fs::write(tests.path().join(format!("{number:03}.json")), test.to_string()).unwrap();
    }
    assert_eq!(tested(&component, tests.path()).await.lines().count(), texts.len());
}
