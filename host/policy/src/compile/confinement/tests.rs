//! What a confined process cannot do, tried by real processes: this test program, started again with the name of one test and of its part.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{confined, linux, read_reports};
use crate::compile::compiler_main;
use crate::engine;
use carillon_testing::guest::{Guest, PLAIN};

/// Environment variable that makes a test of this program the confined process, and says what it does.
const PART: &str = "CARILLON_TEST_CONFINED";

/// Number of attempts of [`attempts`].
const ATTEMPTS: usize = 14;

/// Result of an attempt that did not fail.
const POSSIBLE: &str = "possible";

/// Starts this program again for one test of this module, whose process plays `part` and uses `dir`.
fn start(test: &str, part: &str, dir: &Path) -> Child {
    let name = format!("compile::confinement::tests::{test}");
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .env("TMPDIR", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Prints a line, whatever of it the harness has begun.
fn print(line: &str) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// Prints the name of an attempt and what came of it.
fn attempt<T>(name: &str, result: std::io::Result<T>) {
    let result = result.map_or_else(|error| error.to_string(), |_| POSSIBLE.to_owned());
    print(&format!("attempt {name}: {result}"));
}

/// Tries everything that a confined process must not be able to do. `dir` has the file `existing`.
fn attempts(dir: &Path) {
    let [existing, link, renamed] = ["existing", "link", "renamed"].map(|name| dir.join(name));
    attempt("tcp", TcpStream::connect("127.0.0.1:9"));
    attempt("udp", UdpSocket::bind("127.0.0.1:0"));
    attempt("unix socket", UnixStream::pair());
    attempt("start a process", Command::new("/bin/true").spawn());
    attempt("start a thread", std::thread::Builder::new().spawn(|| ()));
    attempt("read a file", std::fs::read(&existing));
    attempt("write a file", std::fs::OpenOptions::new().write(true).open(&existing));
    attempt("create a file", std::fs::File::create(dir.join("new")));
    attempt("link a file", std::fs::hard_link(&existing, &link));
    attempt("rename a file", std::fs::rename(&link, renamed));
    attempt("remove a file", std::fs::remove_file(&existing));
    attempt("make a directory", std::fs::create_dir(dir.join("directory")));
    attempt("list a directory", std::fs::read_dir(dir));
    // Last: if it is possible, this process is another program.
    attempt::<()>("exec", Err(Command::new("/bin/echo").arg("attempt exec: possible").exec()));
}

/// Runs the process of one test to its end and returns the lines about attempts.
fn lines_of(test: &str, part: &str, dir: &Path) -> Vec<String> {
    let output = start(test, part, dir).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("attempt ")).map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    lines
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("existing"), "content").unwrap();
    dir
}

#[test]
fn confined_process_can_only_compute() {
    let dir = std::env::temp_dir();
    if let Ok(part) = std::env::var(PART) {
        if part == "confined" {
            confined(move || {
                attempts(&dir);
                Ok(())
            })
            .unwrap();
        } else {
            attempts(&dir);
        }
        // The harness must not go on in this process.
        std::process::exit(0);
    }
    let test = "confined_process_can_only_compute";
    // Without confinement all of it is possible, so that the attempts mean something. Nothing listens at that port of TCP.
    let dir = directory();
    let lines = lines_of(test, "free", dir.path());
    assert_eq!(lines.len(), ATTEMPTS, "{lines:?}");
    assert!(lines.iter().all(|line| line.ends_with(POSSIBLE) || line.contains("refused")), "{lines:?}");

    let dir = directory();
    let lines = lines_of(test, "confined", dir.path());
    assert_eq!(lines.len(), ATTEMPTS, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("not permitted") || line.contains("denied")), "{lines:?}");
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["existing"]);
}

#[test]
fn landlock_alone_keeps_files_closed() {
    let dir = std::env::temp_dir();
    if std::env::var(PART).is_ok() {
        match linux::restrict_files() {
            Ok(()) => attempt("read", std::fs::read(dir.join("existing"))),
            Err(error) => print(&format!("attempt nothing: {error}")),
        }
        attempt("write", std::fs::File::create(dir.join("new")));
        std::process::exit(0);
    }
    let dir = directory();
    let lines = lines_of("landlock_alone_keeps_files_closed", "landlock", dir.path());
    let is_missing = lines[0].starts_with("attempt nothing");
    assert!(is_missing || lines.iter().all(|line| line.contains("denied")), "{lines:?}");
}

/// Returns the priority values of a process's threads.
fn nice_of(process: &str) -> Vec<i64> {
    let threads = std::fs::read_dir(format!("{process}/task")).unwrap().map(|entry| entry.unwrap().path());
    let nice = |stat: String| stat.rsplit(") ").next()?.split(' ').nth(16)?.parse().ok();
    threads.filter_map(|thread| nice(std::fs::read_to_string(thread.join("stat")).ok()?)).collect()
}

#[test]
fn compiler_is_confined_and_compiles() {
    if std::env::var(PART).is_ok() {
        compiler_main(60, 4 << 30).unwrap();
        std::process::exit(0);
    }
    let dir = directory();
    let mut child = start("compiler_is_confined_and_compiles", "compiler", dir.path());
    // It is confined before it reads the first byte, so it waits for that one.
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        if status.contains("Seccomp:\t2") || !status.contains("Seccomp:") || child.try_wait().unwrap().is_some() {
            break status;
        }
        std::thread::yield_now();
    };
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // The test harness calls the compiler in a thread that is not the first; those that it starts have its priority.
    let own = nice_of("/proc/self").into_iter().max().unwrap();
    let lowered = nice_of(&format!("/proc/{}", child.id()));
    assert!(lowered.iter().filter(|nice| **nice >= (own + 10).min(19)).count() >= 2, "{own}: {lowered:?}");

    let component = Guest::new("judge", PLAIN).build();
    child.stdin.take().unwrap().write_all(&component).unwrap();
    let mut artefact = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut artefact).unwrap();
    let expected = engine::compile(&component).unwrap();
    // The harness has written its own first lines.
    assert!(artefact.ends_with(&expected), "{}", String::from_utf8_lossy(&artefact));
    assert!(child.wait().unwrap().success());
}

#[test]
fn missing_means_are_told_apart_from_errors() {
    let (missing, rest) = read_reports("unconfined: landlock\nunconfined: a lie\nerror: unknown import\n");
    assert_eq!((missing, rest.as_str()), (vec!["landlock"], "unconfined: a lie\nerror: unknown import"));
    assert_eq!(read_reports(""), (Vec::new(), String::new()));
}
