//! Command line of the program: `carillon serve` runs the server, `carillon migrate` moves its database, and the other commands talk to a
//! server over its API.
//!
//! A command prints text for people, or with `--json` the server's response. A command that fails prints one line to standard error and exits
//! with 1; one with invalid arguments exits with 2.

mod backup;
mod keys;
mod log_filter;
mod migrate;
mod recover;
mod serve;

use std::io::{self, Write};
use std::pin::Pin;
use std::process::ExitCode;

use clap::{Arg, Parser, Subcommand};

use carillon_cli::secret::warn_of_passwords;
use carillon_cli::{Output, Remote, RemoteCommand, config, run_remote, visible_lines};
use carillon_policy::{COMPILER_SUBCOMMAND, compiler_main};

/// Job scheduler that delivers HTTP callbacks on time, with WebAssembly plugins that encode, sign, judge and retry them.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    #[command(args(without_server()))]
    Serve(serve::Serve),
    /// Compile a component to native code; the server runs this command itself.
    #[command(name = COMPILER_SUBCOMMAND, hide = true)]
    Compile {
        /// Limit of processor time, in seconds.
        seconds: u64,
        /// Limit of address space, in bytes.
        memory: u64,
    },
    /// Measure how fast this machine accepts and delivers jobs and calls policies.
    #[command(args(without_server()))]
    Bench(carillon_bench::Bench),
    /// Count requests; `bench` runs this command itself.
    #[command(name = carillon_bench::sink::SUBCOMMAND, hide = true)]
    BenchSink,
    /// Move a server's data to another database.
    #[command(subcommand)]
    #[command(args(without_server()))]
    Migrate(migrate::Command),
    /// Check a configuration.
    #[command(subcommand)]
    #[command(args(without_server()))]
    Config(config::Command),
    /// Copy a server's SQLite database while the server runs.
    #[command(args(without_server()))]
    Backup(backup::Backup),
    /// Change the master key, which encrypts the tenants' keys.
    #[command(subcommand)]
    #[command(args(without_server()))]
    Keys(keys::Command),
    /// Regain access to a server whose token or master key is lost.
    #[command(subcommand)]
    #[command(args(without_server()))]
    Recover(recover::Command),
    #[command(flatten)]
    Remote(Box<RemoteCommand>),
}

/// Makes hidden arguments that replace the options of commands that talk to a server, for a command that does not, and reject their use.
fn without_server() -> [Arg; 4] {
    let refuse = |_: &str| Err::<String, _>("this command does not talk to a server");
    [("server", "server"), ("token", "token"), ("token_file", "token-file"), ("tenant", "tenant")]
        .map(|(id, name)| Arg::new(id).long(name).hide(true).value_parser(refuse))
}

/// Runs the program with the process's own arguments.
#[must_use]
pub fn main() -> ExitCode {
    warn_of_passwords(std::env::args_os().filter_map(|argument| argument.into_string().ok()));
    match run(Cli::parse()) {
        Err(error) if !is_broken_pipe(&error) => {
            // If this write fails too, nothing can be reported.
            let _ = writeln!(io::stderr(), "error: {}", visible_lines(&format!("{error:#}")));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let block_on = |task: Pin<Box<dyn Future<Output = anyhow::Result<()>>>>| {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(task)
    };
    match cli.command {
        Command::Compile { seconds, memory } => compiler_main(seconds, memory),
        Command::Bench(bench) => block_on(Box::pin(bench.run(Output::new(cli.remote.json)))),
        Command::BenchSink => carillon_bench::sink::main(),
        Command::Migrate(command) => block_on(Box::pin(command.run(Output::new(cli.remote.json)))),
        Command::Config(command) => command.run(Output::new(cli.remote.json)),
        Command::Backup(backup) => block_on(Box::pin(backup.run(Output::new(cli.remote.json)))),
        Command::Keys(command) => block_on(Box::pin(command.run(Output::new(cli.remote.json)))),
        Command::Recover(command) => block_on(Box::pin(command.run(Output::new(cli.remote.json)))),
        Command::Serve(serve) => block_on(Box::pin(serve.run(Output::new(cli.remote.json)))),
        Command::Remote(command) => block_on(Box::pin(run_remote(*command, cli.remote))),
    }
}

/// Returns whether the reader of the output has closed it, as `head` does: that is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_without_a_server_offer_no_options_for_one() {
        for (command, offers) in [
            (vec!["serve"], false),
            (vec!["backup"], false),
            (vec!["config", "check"], false),
            (vec!["migrate", "sqlite-to-postgres"], false),
            (vec!["bench"], false),
            (vec!["job", "list"], true),
        ] {
            let arguments = [vec!["carillon"], command.clone(), vec!["--help"]].concat();
            let help = Cli::try_parse_from(arguments).unwrap_err().to_string();
            assert_eq!(help.contains("--server <URL>"), offers, "{command:?}: {help}");
        }
    }

    #[test]
    fn misuse_is_told_from_failure() {
        for arguments in [
            vec!["carillon", "job", "create"],
            vec!["carillon", "job", "create", "group", "http://x", "--payload", "{"],
            vec!["carillon", "job", "list", "group", "--state", "asleep"],
            vec!["carillon", "events", "--kind", "push,nonsense"],
            vec!["carillon", "serve", "--listen", "everywhere"],
            vec!["carillon", "serve", "--server", "http://127.0.0.1:1"],
            vec!["carillon", "recover", "token", "--token", "t"],
            vec!["carillon", "recover", "token", "--token-file", "t"],
            vec!["carillon", "key", "list", "--token", "t", "--token-file", "t"],
            vec!["carillon", "recover", "token", "--store", "sqlite:x.db", "--store-file", "f"],
            vec!["carillon", "token", "create", "name", "--role", "king"],
        ] {
            let error = Cli::try_parse_from(&arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}
