//! Pages of the documentation whose commands are run, as they are printed.
//!
//! A block marked `sh no-test: REASON` is not run: what it needs is not there in a test.

use std::path::Path;
use std::process::Stdio;

use regex::Regex;
use tokio::process::Command;

use super::{ADMIN_TOKEN, repository, shared_dir};

/// A block of commands, and the texts that the page shows after it as its output.
pub struct Block {
    pub commands: String,
    pub prints: Vec<String>,
}

/// What readers do by eye: they copy the id of the newest job of a group, wait until a job has ended or a server listens, and stop a command
/// that runs on when they have seen its first line.
pub const BY_EYE: &str = r#"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
curl() { command curl --silent --show-error --fail-with-body "$@"; }
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
first_line() {
    local line
    exec 3< <(exec "$@")
    read -r line <&3
    kill $!
    exec 3<&-
    echo "$line"
}
"#;

/// The first line of a fenced block: its number, and what is said about the block.
pub struct Fence {
    pub line: usize,
    pub info: String,
}

/// The fenced blocks of a page, whatever is in them.
pub fn fences(page: &Path) -> Vec<Fence> {
    let text = std::fs::read_to_string(page).unwrap();
    let fences = text.lines().enumerate().filter_map(|(index, line)| {
        let info = line.trim_start().strip_prefix("```")?;
        Some(Fence { line: index + 1, info: info.to_owned() })
    });
    fences.step_by(2).collect()
}

/// The blocks of a page in a language, as they are printed.
pub fn blocks_in(path: &str, language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(repository().join(path)).unwrap();
    let parts = page.split("\n```").skip(1).step_by(2).filter_map(|part| part.split_once('\n'));
    parts.filter(|(info, _)| *info == language).map(|(_, text)| text.to_owned()).collect()
}

/// Reads the blocks of commands of a page, each with the output that is shown after it.
pub fn blocks(path: &str) -> Vec<Block> {
    let page = std::fs::read_to_string(repository().join(path)).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut follows_commands = false;
    let parts: Vec<&str> = page.split("\n```").collect();
    for pair in parts.chunks_exact(2) {
        let [before, part] = pair else { unreachable!("pairs have two parts") };
        let (language, text) = part.split_once('\n').unwrap();
        let is_output = follows_commands && !before.contains("\n#") && matches!(language, "text" | "json" | "");
        if language == "sh" {
            blocks.push(Block { commands: text.to_owned(), prints: Vec::new() });
        } else if is_output {
            blocks.last_mut().unwrap().prints.push(text.to_owned());
        }
        follows_commands = language == "sh" || is_output;
    }
    blocks
}

/// What a script printed, on both of its streams.
pub struct Transcript {
    pub succeeded: bool,
    pub text: String,
}

/// Runs commands in one shell that stops at the first failure.
pub async fn shell(server: &str, directory: &Path, script: &str) -> Transcript {
    let program = Path::new(env!("CARGO_BIN_EXE_carillon"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{script}")])
        .current_dir(directory)
        .envs([("PATH", path.as_str()), ("CARILLON_SERVER", server), ("CARILLON_TOKEN", ADMIN_TOKEN)])
        // The page does not say so, and the tests of other plugins have compiled most of it.
        .env("CARILLON_PLUGIN_TARGET_DIR", shared_dir().join("scaffolds"))
        .env("PYTHONUNBUFFERED", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    Transcript { succeeded: output.status.success(), text: String::from_utf8_lossy(&output.stdout).into_owned() }
}

/// Replaces what differs between two runs: ids, times, random numbers and what is made of them.
pub fn without_variables(text: &str) -> String {
    let variables = [
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", "TRACE"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        (r"digest [0-9a-f]{64}", "digest DIGEST"),
        (r#""seed":\d+"#, r#""seed":SEED"#),
        (r" +\n", "\n"),
    ];
    variables.iter().fold(text.to_owned(), |text, (pattern, name)| {
        Regex::new(pattern).unwrap().replace_all(&text, *name).into_owned()
    })
}
