//! A PostgreSQL server of a test's own: a real one, in a directory that goes with it, reached through a socket there. Durable as any:
//! nothing is switched off for speed.
//!
//! This file is also part of the library's unit tests.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Where Debian keeps the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The user that owns everything in the cluster.
const USER: &str = "carillon";

/// How long a server may take to start, and how often it is asked.
const START: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_millis(20);

/// Who the server runs as: it refuses to be root.
type Owner = Option<(u32, u32)>;

/// A server that runs as long as this lives.
pub struct Cluster {
    dir: TempDir,
    programs: PathBuf,
    owner: Owner,
    server: Child,
}

impl Cluster {
    /// Makes a cluster and starts its server.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("carillon-pg").tempdir().unwrap();
        let owner = owner(dir.path());
        let programs = programs();
        let data = dir.path().join("data");
        let mut initdb = command(&programs.join("initdb"), dir.path(), owner);
        initdb.args(["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--pgdata"]);
        succeed(initdb.arg(&data));
        let server = serve(&programs, dir.path(), owner);
        let cluster = Self { dir, programs, owner, server };
        cluster.wait_until_ready();
        cluster
    }

    /// Where a database of the cluster is.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@localhost/{database}?host={}", self.dir.path().display())
    }

    /// Makes an empty database, or a copy of one that nobody is connected to.
    pub fn create(&self, database: &str, template: Option<&str>) {
        let template = template.map(|template| format!("TEMPLATE {template}")).unwrap_or_default();
        self.sql("postgres", &format!("CREATE DATABASE {database} {template}"));
    }

    /// Runs statements as another program would; what they answer.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = command(&self.programs.join("psql"), self.dir.path(), self.owner);
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set",
            "ON_ERROR_STOP=1",
            "--username",
            USER,
        ]);
        psql.args(["--dbname", database, "--command", sql, "--host"]).arg(self.dir.path());
        succeed(&mut psql).trim().to_owned()
    }

    /// Ends the server as a crash would, and starts it again.
    pub fn crash(&mut self) {
        self.end();
        self.server = serve(&self.programs, self.dir.path(), self.owner);
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        for _ in 0..START.as_millis() / ASK.as_millis() {
            let mut ready = command(&self.programs.join("pg_isready"), self.dir.path(), self.owner);
            if ready.arg("--host").arg(self.dir.path()).output().unwrap().status.success() {
                return;
            }
            std::thread::sleep(ASK);
        }
        panic!("{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
    }

    fn end(&mut self) {
        let mut stop = command(&self.programs.join("pg_ctl"), self.dir.path(), self.owner);
        stop.args(["stop", "--mode", "immediate", "--pgdata"]).arg(self.dir.path().join("data"));
        drop(stop.output());
        drop(self.server.wait());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // It may be a link, and the others not there.
    if let Some(found) = std::env::split_paths(&path).find_map(|directory| directory.join("initdb").canonicalize().ok())
    {
        return found.parent().unwrap().to_owned();
    }
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.map(|version| version.path()).max_by_key(number);
    newest.expect("PostgreSQL is installed: `script/bootstrap test` does that").join("bin")
}

/// Gives the directory to another user if we are root.
fn owner(directory: &Path) -> Owner {
    if std::fs::metadata(directory).unwrap().uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = |name: &str| users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|user| user[0] == name);
    let user = user("postgres").or_else(|| user("nobody")).expect("there is a user that is not root");
    let (user, group) = (user[2].parse().unwrap(), user[3].parse().unwrap());
    chown(directory, Some(user), Some(group)).unwrap();
    Some((user, group))
}

fn command(program: &Path, directory: &Path, owner: Owner) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
    if let Some((user, group)) = owner {
        command.uid(user).gid(group);
    }
    command
}

fn serve(programs: &Path, directory: &Path, owner: Owner) -> Child {
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let mut server = command(&programs.join("postgres"), directory, owner);
    server.arg("-D").arg(directory.join("data")).arg("-k").arg(directory);
    server.args(["-c", "listen_addresses=", "-c", "max_connections=200"]);
    server.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
