//! PostgreSQL server of a test's own: a real one, in a directory that is removed with it, reached through a socket there. It is as durable as
//! any: nothing is switched off for speed.
//!
//! This file is also part of the library's unit tests.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Directory where Debian keeps the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// User that owns everything in the cluster.
const USER: &str = "carillon";

/// Name of a standby.
const STANDBY: &str = "standby";

/// Maximum time that a server takes to start, and pause between two checks.
const START: Duration = Duration::from_secs(60);
const ASK: Duration = Duration::from_millis(20);

/// User and group of the server's process: PostgreSQL refuses to run as root.
type Owner = Option<(u32, u32)>;

/// Settings of every server.
const SETTINGS: [&str; 2] = ["listen_addresses=", "max_connections=200"];

/// Server that runs as long as this value lives.
pub struct Cluster {
    home: Home,
    server: Option<Child>,
}

/// Ways to stop a server, in the words of `pg_ctl`.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// All clients are disconnected, and uncommitted transactions are rolled back.
    Fast,
    /// The server stops as in a crash, without a checkpoint.
    Immediate,
}

/// Directory of a cluster, and the way its server is started.
struct Home {
    dir: TempDir,
    programs: PathBuf,
    owner: Owner,
    port: u16,
    settings: Vec<String>,
}

impl Cluster {
    /// Makes a cluster and starts its server.
    pub fn start() -> Self {
        Self::new(Home::new(5432, &[]))
    }

    /// Makes a server with these settings that also listens on a port of 127.0.0.1.
    pub fn listening(settings: &[&str]) -> Self {
        Self::new(Home::new(free_port(), &[&["listen_addresses=127.0.0.1"], settings].concat()))
    }

    fn new(home: Home) -> Self {
        let mut initdb = home.command("initdb");
        initdb.args(["--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--pgdata"]);
        succeed(initdb.arg(home.data()));
        Self::serving(home)
    }

    /// Makes a copy of this cluster that follows it, on a port of 127.0.0.1. Commits wait for it from now on.
    pub fn standby(&self) -> Self {
        let home = Home::new(free_port(), &["listen_addresses=127.0.0.1"]);
        let mut copy = home.command("pg_basebackup");
        copy.args(["--checkpoint", "fast", "--wal-method", "stream", "--write-recovery-conf", "--pgdata"]);
        copy.arg(home.data()).arg("--dbname").arg(format!(
            "host={} port={} user={USER} application_name={STANDBY}",
            self.home.dir.path().display(),
            self.home.port
        ));
        succeed(&mut copy);
        let standby = Self::serving(home);
        self.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'"));
        self.sql("postgres", "SELECT pg_reload_conf()");
        for _ in 0..START.as_millis() / ASK.as_millis() {
            if self.sql("postgres", "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1" {
                return standby;
            }
            std::thread::sleep(ASK);
        }
        panic!("the standby does not follow: {}", standby.log());
    }

    /// Makes a standby a primary, whose commits wait for no standby.
    pub fn promote(&self) {
        succeed(self.home.command("pg_ctl").args(["promote", "--pgdata"]).arg(self.home.data()));
    }

    /// Returns the URL of a database of the cluster.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{USER}@localhost/{database}?host={}&port={}",
            self.home.dir.path().display(),
            self.home.port
        )
    }

    /// Returns the port on 127.0.0.1, if the server listens there.
    pub fn port(&self) -> u16 {
        self.home.port
    }

    /// Makes an empty database, or a copy of one that no client is connected to.
    pub fn create(&self, database: &str, template: Option<&str>) {
        let template = template.map(|template| format!("TEMPLATE {template}")).unwrap_or_default();
        self.sql("postgres", &format!("CREATE DATABASE {database} {template}"));
    }

    /// Runs statements as another program would; returns their output.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.home.command("psql");
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
        psql.args(["--dbname", database, "--command", sql, "--port", &self.home.port.to_string(), "--host"]);
        succeed(psql.arg(self.home.dir.path())).trim().to_owned()
    }

    /// Stops the server as a crash would, and starts it again.
    pub fn crash(&mut self) {
        self.stop(Stop::Immediate);
        self.resume();
    }

    /// Stops the server.
    pub fn stop(&mut self, how: Stop) {
        let Some(mut server) = self.server.take() else { return };
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let mut stop = self.home.command("pg_ctl");
        drop(stop.args(["stop", "--mode", mode, "--pgdata"]).arg(self.home.data()).output());
        drop(server.wait());
    }

    /// Starts the server again.
    pub fn resume(&mut self) {
        self.server = Some(self.home.serve());
        self.wait_until_ready();
    }

    fn serving(home: Home) -> Self {
        let mut cluster = Self { home, server: None };
        cluster.resume();
        cluster
    }

    fn wait_until_ready(&self) {
        for _ in 0..START.as_millis() / ASK.as_millis() {
            let mut ready = self.home.command("pg_isready");
            ready.args(["--port", &self.home.port.to_string(), "--host"]).arg(self.home.dir.path());
            if ready.output().unwrap().status.success() {
                return;
            }
            std::thread::sleep(ASK);
        }
        panic!("{}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop(Stop::Immediate);
    }
}

impl Home {
    fn new(port: u16, settings: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("carillon-pg").tempdir().unwrap();
        let owner = owner(dir.path());
        let settings = SETTINGS.iter().chain(settings).map(|setting| (*setting).to_owned()).collect();
        Self { dir, programs: programs(), owner, port, settings }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.dir).env_clear().env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        if let Some((user, group)) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn serve(&self) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut server = self.command("postgres");
        server.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path()).arg("-p").arg(self.port.to_string());
        server.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        server.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }
}

/// Returns a port that no program listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // `initdb` may be a link, and the other programs are next to its target.
    if let Some(found) = std::env::split_paths(&path).find_map(|directory| directory.join("initdb").canonicalize().ok())
    {
        return found.parent().unwrap().to_owned();
    }
    let versions = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.map(|version| version.path()).max_by_key(number);
    newest.expect("PostgreSQL is installed: `script/bootstrap test` does that").join("bin")
}

/// Gives the directory to another user if this process runs as root.
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

fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
