//! Secrets stay out of the arguments of commands, which other users of the machine can read.

use serde_json::json;

use crate::support::{ADMIN_TOKEN, MASTER_KEY, Setup, TestHost, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn token_is_read_from_a_file_or_standard_input() {
    let host = TestHost::start().await;
    let file = host.dir.path().join("token").display().to_string();
    std::fs::write(&file, format!("{ADMIN_TOKEN}\n")).unwrap();
    let server = ("CARILLON_SERVER", host.base.as_str());
    let wrong = ("CARILLON_TOKEN", "wrong");
    run(&["whoami", "--token-file", &file], &[server, wrong], "").await.ok();
    run(&["whoami"], &[server, ("CARILLON_TOKEN_FILE", &file)], "").await.ok();
    let before_file = [server, ("CARILLON_TOKEN", ADMIN_TOKEN), ("CARILLON_TOKEN_FILE", "/nowhere")];
    run(&["whoami"], &before_file, "").await.ok();
    run(&["--token-file", "-", "whoami"], &[server], &format!("{ADMIN_TOKEN}\n")).await.ok();
    assert!(run(&["whoami"], &[server, wrong], "").await.error(1).contains("token"));

    // The rest of standard input is the command's own.
    run(&["key", "put", "k", "--token-file", "-"], &[server], &format!("{ADMIN_TOKEN}\nof the key\n")).await.ok();
    std::fs::write(host.dir.path().join("secret"), "of the key").unwrap();
    let secret = host.dir.path().join("secret").display().to_string();
    run(&["key", "put", "k", "--file", &secret, "--token-file", &file], &[server], "").await.ok();
    assert_eq!(host.api.get("/v1/keys/k").await.expect(200)["version"], 1, "it is the same secret");

    for (option, expected) in [("/nowhere", "--token-file: `/nowhere` cannot be read"), ("-", "must not be empty")] {
        let refused = run(&["whoami", "--token-file", option], &[server], "").await;
        assert!(refused.error(1).contains(expected), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn url_of_the_database_is_read_from_a_file_or_standard_input() {
    let setup = Setup::new();
    let host = setup.start().await;
    host.api.put_group("g", json!({})).await;
    let (file, copy) = (host.dir.path().join("url"), host.dir.path().join("copy.db").display().to_string());
    let url = format!("sqlite:{}\n", host.dir.path().join("carillon.db").display());
    std::fs::write(&file, &url).unwrap();
    let file = file.display().to_string();
    run(&["backup", &copy, "--store-file", &file], &[], "").await.ok();
    std::fs::remove_file(&copy).unwrap();
    run(&["backup", &copy, "--store-file", "-"], &[("CARILLON_STORE__URL", "sqlite:nowhere.db")], &url).await.ok();
    std::fs::remove_file(&copy).unwrap();
    run(&["backup", &copy], &[("CARILLON_STORE__URL_FILE", &file)], "").await.ok();
    let refused = run(&["backup", &copy, "--store-file", "/nowhere"], &[], "").await;
    assert!(refused.error(1).contains("--store-file: store.url_file: `/nowhere` cannot be read"), "{refused:?}");

    let dir = std::sync::Arc::clone(&host.dir);
    host.stop().await;
    let host = Setup::new().in_dir(&dir).set("store.url", "").set("store.url_file", &file).start().await;
    host.api.get("/v1/groups/g").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn url_with_a_password_as_an_argument_warns() {
    let key = [("CARILLON_KEYS__MASTER_KEY", MASTER_KEY)];
    let url = "postgres://user:hidden@127.0.0.1:1/d";
    let checked = run(&["config", "check", "--store", url], &key, "").await;
    checked.ok();
    assert!(checked.stderr.contains("warning: `--store` is a URL with a password"), "{checked:?}");
    assert!(!checked.stderr.contains("hidden"), "{checked:?}");
    let quiet = [
        run(&["config", "check", "--store-file", "-"], &key, url).await,
        run(&["config", "check"], &[key[0], ("CARILLON_STORE__URL", url)], "").await,
        run(&["config", "check", "--store", "postgres://user@127.0.0.1:1/d"], &key, "").await,
    ];
    for quiet in quiet {
        quiet.ok();
        assert!(!quiet.stderr.contains("warning"), "{quiet:?}");
    }
    // The database of a migration likewise; nobody listens there.
    let from = ["migrate", "sqlite-to-postgres", "--from", "/nowhere/x.db"];
    let warned = run(&[&from[..], &["--to", url]].concat(), &[], "").await;
    assert!(warned.error(1).contains("warning: `--to` is a URL with a password"), "{warned:?}");
    for (more, environment) in [(&["--to-file", "-"][..], &[][..]), (&[], &[("CARILLON_MIGRATE_TO", url)])] {
        let failed = run(&[&from[..], more].concat(), environment, url).await;
        let error = failed.error(1);
        assert!(!error.contains("warning") && error.contains("the SQLite database"), "{error}");
    }
    assert!(run(&from, &[], "").await.error(1).contains("name the PostgreSQL database: --to, --to-file"));
}
