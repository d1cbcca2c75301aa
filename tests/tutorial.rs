//! The page that teaches how a policy is written: every command of it, as it stands there.

use crate::support::{TestHost, blocks, shell};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_page_works() {
    let blocks = blocks("docs/guides/write-a-policy.md");
    assert!(blocks.len() > 6, "{} blocks", blocks.len());
    let (host, directory) = (TestHost::start().await, tempfile::tempdir().unwrap());
    let script: String = blocks.iter().map(|block| format!("{}\n", block.commands)).collect();
    let ran = shell(&host.base, directory.path(), &script).await;
    assert!(ran.succeeded, "{}", ran.text);
    for block in &blocks {
        for prints in &block.prints {
            assert!(ran.text.contains(prints.trim()), "{} does not print {prints} but {}", block.commands, ran.text);
        }
    }
    // What the page says has come of it.
    let api = &host.api;
    assert_eq!(api.get("/v1/plugins/says-accepted").await.expect(200)["version"], "0.1.0");
    let group = api.get("/v1/groups/orders").await.expect(200);
    assert!(group["judge"].is_null(), "it was rolled back: {group}");
    let history = api.get("/v1/groups/orders/policy/history").await.expect(200);
    assert_eq!(history["items"][0]["action"], "rollback");
}
