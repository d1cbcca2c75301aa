//! Debian's own registry for containers, as a process of the test.

use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::{repository, soon};

/// A registry on a free port, with a directory of its own; both are gone with it.
pub struct Registry {
    /// Host and port.
    pub address: String,
    directory: TempDir,
    _process: Child,
}

impl Registry {
    /// Starts one. `users` are lines of an `htpasswd` file; without any, everybody may do everything.
    pub async fn start(users: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{formatter: json}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            at("data")
        );
        if let Some(users) = users {
            std::fs::write(at("users"), users).unwrap();
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", at("users")));
        }
        std::fs::write(at("config.yml"), config).unwrap();
        let installed = repository().join(".registry/usr/bin/docker-registry");
        let program = if installed.exists() { installed } else { PathBuf::from("docker-registry") };
        let mut process = Command::new(&program)
            .args(["serve", &at("config.yml")])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}: `script/bootstrap test` installs it", program.display()));
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listening = async {
            let mut said = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some((_, address)) = line.split_once("listening on ") {
                    return address.chars().take_while(|it| it.is_ascii_digit() || ".:".contains(*it)).collect();
                }
                said.push_str(&line);
            }
            panic!("the registry does not start: {said}")
        };
        let address = soon("the registry listens", listening).await;
        // What it says from now on is not kept, and must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { address, directory, _process: process }
    }

    /// The file in which it keeps a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let blobs = self.directory.path().join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(digest).join("data")
    }
}
