//! The program itself, in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::{ADMIN_TOKEN, MASTER_KEY, TestHost, eventually, shared_dir, soon};

/// A `carillon` with nothing of this environment in its own but what it needs to run.
fn carillon(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    command.args(arguments);
    isolated(command)
}

/// A command that inherits nothing.
fn isolated(mut command: Command) -> Command {
    command.env_clear().kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a server is started on a free port, with a log that can be read.
const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--log-format", "json"];

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// None if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The output as JSON; the command must have succeeded.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The output; the command must have succeeded.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stdout
    }

    /// The one line of the error; the command must have failed in this way.
    #[track_caller]
    pub fn error(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stdout.is_empty(), "a failure prints no result: {self:?}");
        &self.stderr
    }
}

/// Runs a command to its end.
pub async fn run(arguments: &[&str], environment: &[(&str, &str)], stdin: &str) -> Finished {
    let mut child = carillon(arguments).envs(environment.iter().copied()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // A command that does not read its input may be gone by now.
    drop(input.write_all(stdin.as_bytes()).await);
    drop(input);
    let output = soon(&format!("{arguments:?} ends"), child.wait_with_output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs a command against a host, as its first administrator.
pub async fn cli(host: &TestHost, arguments: &[&str], stdin: &str) -> Finished {
    run(arguments, &[("CARILLON_SERVER", &host.base), ("CARILLON_TOKEN", ADMIN_TOKEN)], stdin).await
}

/// Resident memory of a program, in MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub now: u64,
    pub peak: u64,
}

/// A server that runs as a program.
pub struct Program {
    pub base: String,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Program {
    /// Starts `carillon serve` and waits until it is ready.
    pub async fn serve(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start(carillon(&SERVE), arguments, environment).await
    }

    /// The same with at most so many open files.
    pub async fn serve_with_files(files: u32, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let script = format!("ulimit -n {files} && exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_carillon")]).args(SERVE);
        Self::start(isolated(command), arguments, environment).await
    }

    /// The same, but that a file that may not grow is an error of the write and does not end it.
    pub async fn serve_with_bounded_files(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_carillon")]).args(SERVE);
        Self::start(isolated(command), arguments, environment).await
    }

    /// Whether a process may have mounts of its own here.
    pub async fn can_mount() -> bool {
        let mut command = Command::new("unshare");
        command.args(["-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]);
        command.stderr(Stdio::null()).status().await.is_ok_and(|status| status.success())
    }

    /// Starts `carillon serve` where a directory is a file system of 16 MiB that only this process and its children see.
    pub async fn serve_on_small_disk(directory: &Path, arguments: &[&str]) -> Self {
        let mount = "mount -t tmpfs -o size=16m tmpfs \"$0\" && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-rm", "sh", "-c", mount]).arg(directory).arg(env!("CARGO_BIN_EXE_carillon")).args(SERVE);
        Self::start(isolated(command), arguments, &[]).await
    }

    /// Where others find what the process sees at a path.
    pub fn beneath(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.child.id().expect("it runs"));
        Path::new(&root).join(path.strip_prefix("/").expect("the path is absolute"))
    }

    /// From now on it can write so many bytes at most to each file.
    pub fn bound_files(&self, bytes: u64) {
        let id = i32::try_from(self.child.id().expect("it runs")).unwrap();
        let hard = rlimit::Resource::FSIZE.get_hard().unwrap();
        rlimit::prlimit(id, rlimit::Resource::FSIZE, Some((bytes.min(hard), hard)), None).unwrap();
    }

    async fn start(mut command: Command, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let cache = shared_dir().join("plugin-cache").display().to_string();
        let mut child = command
            .args(arguments)
            .envs([("CARILLON_KEYS__MASTER_KEY", MASTER_KEY), ("CARILLON_POLICY__CACHE_DIR", &cache)])
            .env("CARILLON_LOG", "trace")
            .env("CARILLON_SERVER__DRAIN_NOTICE", "0s")
            .envs(environment.iter().copied())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (ready, mut address) = watch::channel(None);
        let (kept, mut lines) = (Arc::clone(&log), BufReader::new(child.stderr.take().unwrap()).lines());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let entry: Value = serde_json::from_str(&line).unwrap_or_default();
                if entry["message"] == "ready" {
                    ready.send_replace(entry["address"].as_str().map(str::to_owned));
                }
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let found = soon("the server is ready", address.wait_for(Option::is_some)).await.map(|found| found.clone());
        let Ok(Some(found)) = found else { panic!("the server does not start: {}", log.lock().unwrap()) };
        Self { base: format!("http://{found}"), child, log }
    }

    /// Sends it the signal to stop.
    pub async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Sends it a signal, by its name without `SIG`.
    pub async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    /// Its resident memory in MiB: now, and the most since the last [`Program::forget_peak`] (see proc_pid_status(5)).
    pub fn memory_mib(&self) -> Memory {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it");
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_024
        };
        Memory { now: field("VmRSS:"), peak: field("VmHWM:") }
    }

    /// Makes the peak of its memory what it has now (see proc_pid_clear_refs(5)).
    pub fn forget_peak(&self) {
        std::fs::write(self.proc("clear_refs"), "5").unwrap();
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id().expect("it runs"))
    }

    /// SIGKILL; returns when it is gone, and its files are free.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Its exit code, when it has ended.
    pub async fn ended(&mut self) -> Option<i32> {
        soon("the server ends", self.child.wait()).await.unwrap().code()
    }

    /// Waits until it has logged `text`, and returns all that it logged until then.
    pub async fn until_logged(&self, text: &str) -> String {
        let what = format!("the server logs {text:?}");
        eventually(&what, async || self.log(), |log| log.contains(text)).await
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}
