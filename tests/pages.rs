//! The commands of the documents, run as they are printed; what a page shows as output is what comes out.
//!
//! Every block of commands of every document is run here or by a test that is named here, or says why it is not.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::{
    BY_EYE, Program, blocks, blocks_in, fences, free_port, repository, run, shell, without_variables,
};

/// Pages whose commands have a test of their own: `tutorial` and `migrate::page`.
const RUN_ELSEWHERE: [&str; 2] = ["docs/guides/write-a-policy.md", "docs/guides/migrate.md"];

/// What the block of a command that is not run begins with; a reason follows.
const NOT_RUN: &str = "sh no-test: ";

/// Names of languages that a reader takes for commands, and that no test looks for.
const OTHER_SHELLS: [&str; 6] = ["bash", "shell", "console", "zsh", "shell-session", "terminal"];

/// Pages that a reader follows one after the other at one server.
struct Walkthrough {
    pages: &'static [&'static str],
    /// Commands that a reader is taken to have run before.
    before: &'static str,
    /// Texts of the pages, and what a reader puts in their place: ids and tokens of their own.
    placeholders: &'static [(&'static str, &'static str)],
}

const WALKTHROUGHS: [&Walkthrough; 6] = [&JOBS, &ROLLOUT, &QUICKSTART, &POLICIES, &OPERATION, &PLUGINS];

const JOBS: Walkthrough = Walkthrough {
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
};

const ROLLOUT: Walkthrough = Walkthrough {
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
};

const QUICKSTART: Walkthrough = Walkthrough {
    pages: &["docs/guides/quickstart.md"],
    before: "",
    placeholders: &[(
        "python3 -m http.server --bind 127.0.0.1 8000 &",
        "python3 -m http.server --bind 127.0.0.1 8000 & until_it_listens 8000",
    )],
};

const POLICIES: Walkthrough = Walkthrough {
    pages: &["docs/concepts/policies.md"],
    before: r"
carillon group put reminders
echo 'Bearer abc' >token.txt
carillon plugin build examples/judge-json-ok -o judge.wasm
",
    // The key has been put before, so its oldest version has another number.
    placeholders: &[(
        "key delete hook --version 1",
        r#"key delete hook --version $(carillon key get hook | grep -o '"version": [0-9]*' | tail -1 | cut -d' ' -f2)"#,
    )],
};

const OPERATION: Walkthrough = Walkthrough {
    pages: &["docs/guides/operate.md"],
    before: r"
CARILLON_SERVER__DRAIN_NOTICE=0s carillon serve --no-auth --listen 127.0.0.1:8000 --store sqlite:data/carillon.db & stopped=$!
until_it_listens 8000
kill $stopped
wait $stopped || true
carillon group put reminders
carillon job create reminders http://192.0.2.1/
carillon tenant put acme
",
    placeholders: &[
        ("curl -N -H", "first_line curl --silent -N -H"),
        ("carillon events --group reminders", "carillon events --limit 1 --group reminders"),
    ],
};

const PLUGINS: Walkthrough = Walkthrough {
    pages: &[
        "examples/judge-json-ok/README.md",
        "examples/encode-cloudevents/README.md",
        "examples/observe-log/README.md",
        "examples/observe-slack/README.md",
        "examples/retry-business-hours-c/README.md",
        "examples/sign-stripe/README.md",
        "examples/presets/README.md",
        "plugins/standard-webhooks/README.md",
    ],
    before: "",
    placeholders: &[("xoxb-…", "xoxb-1")],
};

async fn assert_that_it_works(walkthrough: &Walkthrough) {
    let (directory, receiver) = (tempfile::tempdir().unwrap(), free_port());
    let store = format!("sqlite:{}", directory.path().join("carillon.db").display());
    let server = Program::serve(&["--no-auth", "--egress-allow", "127.0.0.0/8", "--store", &store], &[]).await;
    std::os::unix::fs::symlink(repository().join("examples"), directory.path().join("examples")).unwrap();
    let blocks: Vec<_> = walkthrough.pages.iter().flat_map(|page| blocks(page)).collect();
    assert!(!blocks.is_empty());
    let mut script = format!("{BY_EYE}{}", walkthrough.before);
    for (number, block) in blocks.iter().enumerate() {
        script.push_str(&format!("echo '{}'\n{}\n", begins(number), block.commands));
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
    for (number, block) in blocks.iter().enumerate() {
        // What it started in the background goes on printing.
        let (_, printed) = text.split_once(&begins(number)).expect("every block has begun");
        for line in block.prints.iter().flat_map(|prints| prints.lines()) {
            let line = without_variables(line);
            assert!(printed.contains(line.trim_end()), "`{}` does not print\n{line}\nbut\n{printed}", block.commands);
        }
    }
}

/// The line before the output of a block.
fn begins(number: usize) -> String {
    format!("=== block {number} ===")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_the_readme_and_of_the_job_guides_work() {
    assert_that_it_works(&JOBS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_the_rollout_guide_work() {
    assert_that_it_works(&ROLLOUT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_the_quickstart_work() {
    assert_that_it_works(&QUICKSTART).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_about_policies_keys_and_plugins_work() {
    assert_that_it_works(&POLICIES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_the_operators_guide_work() {
    assert_that_it_works(&OPERATION).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_of_the_plugins_readmes_work() {
    assert_that_it_works(&PLUGINS).await;
}

/// The documents of the repository below a path: its Markdown files, without those of dependencies and builds.
fn documents(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return if path.extension().is_some_and(|it| it == "md") { vec![path.to_owned()] } else { Vec::new() };
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with('.') || matches!(&*name, "target" | "node_modules" | "__pycache__") {
        return Vec::new();
    }
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|entry| documents(&entry)).collect()
}

#[test]
fn every_block_of_commands_is_run_or_says_why_not() {
    let run: BTreeSet<_> =
        WALKTHROUGHS.iter().flat_map(|walkthrough| walkthrough.pages).chain(&RUN_ELSEWHERE).copied().collect();
    for page in &run {
        assert!(!blocks(page).is_empty(), "{page} has no commands");
    }
    let roots = ["README.md", "CHANGELOG.md", "docs", "examples", "host", "plugins", "clients", "tests", "wit"];
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for document in roots.iter().flat_map(|root| documents(&repository().join(root))) {
        seen += 1;
        let page = document.strip_prefix(repository()).unwrap().display().to_string();
        for fence in fences(&document) {
            let language = fence.info.split_whitespace().next().unwrap_or_default();
            let says_why = fence.info.strip_prefix(NOT_RUN).is_some_and(|reason| !reason.trim().is_empty());
            let is_wrong = match language {
                "sh" if fence.info == "sh" => !run.contains(page.as_str()),
                "sh" => !says_why,
                _ => OTHER_SHELLS.contains(&language),
            };
            if is_wrong {
                wrong.push(format!("{page}:{}: ```{}", fence.line, fence.info));
            }
        }
    }
    assert!(seen > 60, "{seen} documents");
    let how = "add the page to a walkthrough of tests/pages.rs, or say why it is not run: ```sh no-test: REASON";
    assert!(wrong.is_empty(), "{how}\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn configurations_of_the_documents_are_valid() {
    let (mut checked, directory) = (0, tempfile::tempdir().unwrap());
    for document in documents(&repository().join("docs")) {
        let page = document.strip_prefix(repository()).unwrap().display().to_string();
        for block in blocks_in(&page, "toml") {
            let file = directory.path().join("carillon.toml");
            std::fs::write(&file, &block).unwrap();
            let arguments = ["config", "check", "--config", file.to_str().unwrap()];
            let ran = run(&arguments, &[("FLASK_SECRET", "correct horse")], "").await;
            assert_eq!(ran.code, Some(0), "{page}: {block}\n{ran:?}");
            checked += 1;
        }
    }
    assert!(checked > 1, "{checked} blocks");
}

#[test]
fn plugin_of_the_readme_is_the_example() {
    let blocks = blocks_in("README.md", "rust");
    let [printed] = &blocks[..] else { panic!("{} blocks", blocks.len()) };
    let example = std::fs::read_to_string(repository().join("examples/judge-json-ok/src/lib.rs")).unwrap();
    assert!(example.contains(printed.trim()), "README.md does not show {example}");
}
