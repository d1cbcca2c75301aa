//! The page that teaches how a policy is written: every command of it, as it stands there.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::support::{ADMIN_TOKEN, TestHost, repository, shared_dir};

/// A block of the page, and what follows it.
struct Block {
    commands: String,
    /// Lines that the commands print.
    prints: String,
}

/// The blocks of commands, each with the output that is shown after it.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for part in page.split("\n```").skip(1).step_by(2) {
        let (language, text) = part.split_once('\n').unwrap();
        match language {
            "sh" => blocks.push(Block { commands: text.to_owned(), prints: String::new() }),
            "text" => blocks.last_mut().unwrap().prints = text.to_owned(),
            other => panic!("a block of `{other}`, which this test cannot check"),
        }
    }
    blocks
}

/// Runs all blocks in one shell, which marks where each ends.
async fn shell(host: &TestHost, directory: &Path, script: &str) -> (bool, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_carillon"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(directory)
        .envs([("PATH", path.as_str()), ("CARILLON_SERVER", &host.base), ("CARILLON_TOKEN", ADMIN_TOKEN)])
        // The page does not say so, and the tests of other plugins have compiled most of it.
        .env("CARILLON_PLUGIN_TARGET_DIR", shared_dir().join("scaffolds"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), said.concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_page_works() {
    let page = std::fs::read_to_string(repository().join("docs/write-a-policy.md")).unwrap();
    let blocks = blocks(&page);
    assert!(blocks.len() > 6, "{} blocks", blocks.len());
    let (host, directory) = (TestHost::start().await, tempfile::tempdir().unwrap());
    let script: String = blocks.iter().map(|block| format!("{}\n", block.commands)).collect();
    let (done, said) = shell(&host, directory.path(), &script).await;
    assert!(done, "{said}");
    for block in &blocks {
        assert!(said.contains(block.prints.trim()), "{} does not print {} but {said}", block.commands, block.prints);
    }
    // What the page says has come of it.
    let api = &host.api;
    assert_eq!(api.get("/v1/plugins/says-accepted").await.expect(200)["version"], "0.1.0");
    let group = api.get("/v1/groups/orders").await.expect(200);
    assert!(group["judge"].is_null(), "it was rolled back: {group}");
    let history = api.get("/v1/groups/orders/policy/history").await.expect(200);
    assert_eq!(history["items"][0]["action"], "rollback");
}
