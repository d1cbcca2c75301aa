//! The commands of the guide, as they are printed: those that move a server, and those that repeat the measurement, with fewer jobs.

use crate::support::{BY_EYE, DATABASE, MASTER_KEY, blocks, cluster, free_port, shared_dir, shell};

/// A reader's environment: where the servers that the page starts listen, and how they stop.
fn environment(port: u16) -> String {
    let cache = shared_dir().join("plugin-cache").display().to_string();
    format!(
        "{BY_EYE}
export CARILLON_SERVER__LISTEN=127.0.0.1:{port} CARILLON_SERVER__DRAIN_NOTICE=0s
export CARILLON_KEYS__MASTER_KEY={MASTER_KEY} CARILLON_POLICY__CACHE_DIR={cache}
serve() {{ carillon serve --no-auth \"$@\" 2>>log & server=$!; until_it_listens {port}; }}
"
    )
}

async fn run(port: u16, before: &str, commands: &str, placeholders: &[(&str, &str)]) -> String {
    let mut commands = commands.to_owned();
    for (printed, own) in placeholders {
        assert!(commands.contains(printed), "the page has no {printed}");
        commands = commands.replace(printed, own);
    }
    let directory = tempfile::tempdir().unwrap();
    let script = format!("{}{before}{commands}", environment(port));
    let ran = shell(&format!("http://127.0.0.1:{port}"), directory.path(), &script).await;
    assert!(ran.succeeded, "{}", ran.text);
    ran.text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_the_guide_move_a_server() {
    let (cluster, port) = (cluster(), free_port());
    let blocks = blocks("docs/guides/migrate.md");
    let [moves, measures] = &blocks[..] else { panic!("{} blocks", blocks.len()) };
    // A shell takes the `&` of a URL for its own.
    let url = format!("'{}'", cluster.url(DATABASE));
    let before = "serve --store sqlite:data/carillon.db; carillon group put moved\n";
    let moved = run(
        port,
        before,
        &moves.commands,
        &[
            ("postgres://user:password@host/database", &url),
            ("# stop the server", "kill $server; wait $server"),
            (
                "CARILLON_STORE__URL=\"$CARILLON_MIGRATE_TO\" carillon serve",
                "CARILLON_STORE__URL=\"$CARILLON_MIGRATE_TO\" serve; carillon group list; kill $server; wait $server",
            ),
        ],
    )
    .await;
    assert!(moved.contains("moved"), "the new server has the group: {moved}");

    cluster.create("measured", None);
    let (own_url, listens) =
        (format!("export CARILLON_MIGRATE_TO='{}'\n", cluster.url("measured")), format!("127.0.0.1:{port}"));
    let measured = run(
        port,
        &own_url,
        &measures.commands,
        &[
            ("--egress-allow 127.0.0.0/8 &", &format!("--egress-allow 127.0.0.0/8 2>>log & until_it_listens {port}")),
            ("200000", "20"),
            ("100000", "10"),
            ("127.0.0.1:7070", &listens),
            (
                "# until 100,000 have succeeded",
                "; until carillon group stats g --json | grep -q '\"succeeded\": *10'; do sleep 0.05; done",
            ),
        ],
    )
    .await;
    assert!(measured.contains("real"), "{measured}");
}
