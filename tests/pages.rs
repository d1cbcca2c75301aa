//! The commands of the README and of the guides, run as they are printed; what a page shows as output is what comes out.

use crate::support::{Program, blocks, free_port, repository, shell, without_variables};

/// Pages that a reader follows one after the other at one server.
struct Walkthrough {
    pages: &'static [&'static str],
    /// Commands that a reader is taken to have run before.
    before: &'static str,
    /// Texts of the pages, and what a reader puts in their place: ids and tokens of their own.
    placeholders: &'static [(&'static str, &'static str)],
}

/// What readers do by eye: they copy the id of the newest job of a group, and wait until a job has ended.
const BY_EYE: &str = r#"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
curl() { command curl --silent --show-error "$@"; }
newest() {
    curl -s "$CARILLON_SERVER/v1/groups/$1/jobs?limit=1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["items"][0]["id"])'
}
ended() {
    until curl -s "$CARILLON_SERVER/v1/jobs/$1" | grep -q '"finished_at":"'; do sleep 0.02; done
    echo "$1"
}
until_it_listens() {
    until (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do sleep 0.02; done
}
"#;

async fn assert_that_it_works(walkthrough: &Walkthrough) {
    let (directory, receiver) = (tempfile::tempdir().unwrap(), free_port());
    let store = format!("sqlite:{}", directory.path().join("carillon.db").display());
    let server = Program::serve(&["--no-auth", "--egress-allow", "127.0.0.0/8", "--store", &store], &[]).await;
    std::os::unix::fs::symlink(repository().join("examples"), directory.path().join("examples")).unwrap();
    let blocks: Vec<_> = walkthrough.pages.iter().flat_map(|page| blocks(page)).collect();
    assert!(blocks.len() > 1, "{} blocks", blocks.len());
    let mut script = format!("{BY_EYE}{}", walkthrough.before);
    for block in &blocks {
        script.push_str(&block.commands);
        script.push('\n');
    }
    for (printed, own) in walkthrough.placeholders {
        assert!(script.contains(printed), "no page has {printed}");
        script = script.replace(printed, own);
    }
    let own_receiver = receiver.to_string();
    let script = script
        .replace("target/release/carillon", "carillon")
        .replace("http://127.0.0.1:7070", &server.base)
        .replace("8000", &own_receiver);
    let ran = shell(&server.base, directory.path(), &script).await;
    assert!(ran.succeeded, "{}", ran.text);
    let text = ran.text.replace(&own_receiver, "8000").replace(&server.base, "http://127.0.0.1:7070");
    let text = without_variables(&text);
    for block in &blocks {
        for line in block.prints.iter().flat_map(|prints| prints.lines()) {
            let line = without_variables(line);
            assert!(text.contains(line.trim_end()), "`{}` does not print\n{line}\nbut\n{text}", block.commands);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_the_readme_and_of_the_job_guides_work() {
    assert_that_it_works(&Walkthrough {
        pages: &["README.md", "docs/concepts/jobs.md", "docs/concepts/schedules.md"],
        before: "",
        placeholders: &[
            ("python3 receiver.py &", "python3 receiver.py & until_it_listens 8000"),
            (
                "carillon job attempts 01a1fe41-71e4-7000-8000-254e6d9ef6d9",
                "carillon job attempts $(ended $(newest reminders))",
            ),
            (
                "carillon lease take work --max 10 --wait 20s --lease 1m",
                "leases=$(carillon lease take work --max 10 --wait 20s --lease 1m --json)",
            ),
            (
                "carillon lease complete TOKEN",
                r#"carillon lease complete $(grep -o '"token": *"[^"]*"' <<<"$leases" | cut -d'"' -f4)"#,
            ),
        ],
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_the_rollout_guide_work() {
    assert_that_it_works(&Walkthrough {
        pages: &["docs/guides/roll-out.md"],
        before: r#"
python3 -m http.server --bind 127.0.0.1 8000 >/dev/null 2>&1 & until_it_listens 8000
judge() { printf 'judge = {plugin = "expected-status", config = {expect = ["%s"]}}\n' "$1"; }
for status in 200-299 200-399; do judge $status >group.toml; carillon group put reminders --file group.toml; done
judge 200-202 >group.toml
judge 200-201 >candidate.toml
carillon job create reminders http://127.0.0.1:8000/ --method GET
job=$(ended $(newest reminders))
"#,
        placeholders: &[("01a1ff… 2", "$job 1")],
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_the_quickstart_work() {
    assert_that_it_works(&Walkthrough {
        pages: &["docs/guides/quickstart.md"],
        before: "",
        placeholders: &[(
            "python3 -m http.server --bind 127.0.0.1 8000 &",
            "python3 -m http.server --bind 127.0.0.1 8000 & until_it_listens 8000",
        )],
    })
    .await;
}
