//! The command line: `carillon serve` runs the server, `carillon migrate` moves its database, and everything else talks to a server over
//! its API.
//!
//! What a command prints is for people, or with `--json` what the server answered. A command that fails prints one line to
//! standard error and exits with 1; one that was misused exits with 2.

mod answer;
mod attempts;
mod backup;
mod batch;
mod bench;
pub mod bodies;
mod bulk;
mod changes;
pub mod client;
mod cluster;
mod config;
mod events;
mod group;
mod input;
mod job;
mod job_args;
mod key;
mod lease;
mod local;
mod log_filter;
mod migrate;
mod output;
mod plugin;
mod policy;
mod problem;
mod recover;
mod schedule;
mod serve;
mod tenant;
mod token;

use std::io::{self, Write};
use std::pin::Pin;
use std::process::ExitCode;

use clap::{Arg, Args, Parser, Subcommand};
use serde::Serialize;

use answer::Answer;
use client::Client;
use output::Output;

use crate::policy::{COMPILER_SUBCOMMAND, compiler_main};

/// Makes HTTP callbacks on time and lets WebAssembly components decide how each is encoded, signed, judged and retried.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

/// Which server to talk to, and how to answer.
#[derive(Debug, Args)]
struct Remote {
    /// The server's address.
    #[arg(
        long,
        global = true,
        help_heading = "Server to talk to",
        env = "CARILLON_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:7070"
    )]
    server: String,
    /// The API token.
    #[arg(
        long,
        global = true,
        help_heading = "Server to talk to",
        env = "CARILLON_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// The tenant whose data it is about, for operators; the token's own if it is not said.
    #[arg(long, global = true, help_heading = "Server to talk to", env = "CARILLON_TENANT", value_name = "NAME")]
    tenant: Option<String>,
    /// Print the server's answer as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    #[command(arg(without_server("server")), arg(without_server("token")), arg(without_server("tenant")))]
    Serve(serve::Serve),
    /// Turn a component into native code; the server calls this on itself.
    #[command(name = COMPILER_SUBCOMMAND, hide = true)]
    Compile {
        /// Seconds of CPU.
        seconds: u64,
        /// Bytes of address space.
        memory: u64,
    },
    /// Measure how fast this machine accepts, delivers and decides.
    #[command(arg(without_server("server")), arg(without_server("token")), arg(without_server("tenant")))]
    Bench(bench::Bench),
    /// Count requests; `bench` calls this.
    #[command(name = bench::sink::SUBCOMMAND, hide = true)]
    BenchSink,
    /// Move a server's database.
    #[command(subcommand)]
    #[command(arg(without_server("server")), arg(without_server("token")), arg(without_server("tenant")))]
    Migrate(migrate::Command),
    /// Check a configuration.
    #[command(subcommand)]
    #[command(arg(without_server("server")), arg(without_server("token")), arg(without_server("tenant")))]
    Config(config::Command),
    /// Copy a server's SQLite database while the server runs.
    #[command(arg(without_server("server")), arg(without_server("token")), arg(without_server("tenant")))]
    Backup(backup::Backup),
    /// Get back into a server whose token or master key is lost.
    #[command(subcommand)]
    #[command(arg(without_server("server")), arg(without_server("token")), arg(without_server("tenant")))]
    Recover(recover::Command),
    #[command(flatten)]
    Remote(Box<RemoteCommand>),
}

/// The commands that talk to a server.
#[derive(Debug, Subcommand)]
enum RemoteCommand {
    /// Schedule jobs and follow them.
    #[command(subcommand)]
    Job(Box<job::Command>),
    /// Bind policies and limits to groups of jobs.
    #[command(subcommand)]
    Group(group::Command),
    /// Follow what happens to jobs.
    Events(events::Events),
    /// Make jobs again and again.
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Change many jobs of a group.
    #[command(subcommand)]
    Bulk(Box<bulk::Command>),
    /// Work on jobs that have no target.
    #[command(subcommand)]
    Lease(lease::Command),
    /// Keep the keys that signers use.
    #[command(subcommand)]
    Key(key::Command),
    /// Manage tenants.
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// See the nodes that share a database.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Show who the token is: its role and its tenant, with the tenant's quota and defaults.
    Whoami,
    /// Manage API tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Try policies out, and put versions of them in force.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Manage the components that policies are made of.
    #[command(subcommand)]
    Plugin(plugin::Command),
}

/// In the place of an option for commands that talk to a server, where a command does not: it is not shown, and refused.
fn without_server(name: &'static str) -> Arg {
    let refuse = |_: &str| Err::<String, _>("this command talks to no server");
    Arg::new(name).long(name).hide(true).value_parser(refuse)
}

/// Runs the program with the process's own arguments.
#[must_use]
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Err(error) if !is_broken_pipe(&error) => {
            // Nothing is left to do if even this cannot be written.
            let _ = writeln!(io::stderr(), "error: {error:#}");
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
        Command::BenchSink => bench::sink::main(),
        Command::Migrate(command) => block_on(Box::pin(command.run(Output::new(cli.remote.json)))),
        Command::Config(command) => command.run(Output::new(cli.remote.json)),
        Command::Backup(backup) => block_on(Box::pin(backup.run(Output::new(cli.remote.json)))),
        Command::Recover(command) => block_on(Box::pin(command.run(Output::new(cli.remote.json)))),
        Command::Serve(serve) => block_on(Box::pin(serve.run(Output::new(cli.remote.json)))),
        Command::Remote(command) => block_on(Box::pin(ask(*command, cli.remote))),
    }
}

async fn ask(command: RemoteCommand, remote: Remote) -> anyhow::Result<()> {
    let session = Session {
        client: Client::new(&remote.server, remote.token.filter(|token| !token.is_empty()))?
            .for_tenant(remote.tenant.filter(|tenant| !tenant.is_empty())),
        out: Output::new(remote.json),
    };
    match command {
        RemoteCommand::Job(command) => command.run(&session).await,
        RemoteCommand::Group(command) => command.run(&session).await,
        RemoteCommand::Events(command) => command.run(&session).await,
        RemoteCommand::Schedule(command) => command.run(&session).await,
        RemoteCommand::Bulk(command) => command.run(&session).await,
        RemoteCommand::Lease(command) => command.run(&session).await,
        RemoteCommand::Key(command) => command.run(&session).await,
        RemoteCommand::Tenant(command) => command.run(&session).await,
        RemoteCommand::Cluster(command) => command.run(&session).await,
        RemoteCommand::Whoami => {
            let who: Answer = session.client.get(&["whoami"], &[]).await?;
            session.out.answer(&who)
        }
        RemoteCommand::Token(command) => command.run(&session).await,
        RemoteCommand::Policy(command) => command.run(&session).await,
        RemoteCommand::Plugin(command) => command.run(&session).await,
    }
}

/// Whoever read the output has seen enough, as `head` does: that is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// What every command that talks to a server needs.
#[derive(Debug)]
struct Session {
    client: Client,
    out: Output,
}

/// Which part of a list to show.
#[derive(Debug, Default, Args)]
struct Paging {
    /// The most items to show.
    #[arg(long, value_name = "N", conflicts_with = "all")]
    limit: Option<u32>,
    /// Where to go on: what the last page said.
    #[arg(long)]
    cursor: Option<String>,
    /// Show everything, page after page.
    #[arg(long)]
    all: bool,
}

impl Session {
    /// Prints a list: `columns` are headings and JSON pointers into an item.
    async fn list(
        &self,
        path: &[&str],
        query: Vec<(&str, String)>,
        paging: &Paging,
        columns: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        self.list_as(path, query, paging, columns, Ok).await
    }

    /// Prints a list. The rows of the table are what `row` makes of the items.
    async fn list_as<R: Serialize>(
        &self,
        path: &[&str],
        mut query: Vec<(&str, String)>,
        paging: &Paging,
        columns: &[(&str, &str)],
        row: impl Fn(Answer) -> anyhow::Result<R>,
    ) -> anyhow::Result<()> {
        query.extend(paging.limit.map(|limit| ("limit", limit.to_string())));
        let mut items = Vec::new();
        let mut cursor = paging.cursor.clone();
        loop {
            let mut query = query.clone();
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let page: bodies::Page = self.client.get(path, &query).await?;
            items.extend(page.items);
            cursor = page.next_cursor;
            if !paging.all || cursor.is_none() {
                break;
            }
        }
        if self.out.is_json() {
            return self.out.json(&Listed { items, next_cursor: cursor });
        }
        if items.is_empty() {
            return self.out.line(&format!("no {}", noun(path)));
        }
        self.out.table(columns, &items.into_iter().map(row).collect::<anyhow::Result<Vec<_>>>()?)?;
        match cursor {
            Some(cursor) => self.out.note(&format!("There is more: --cursor {cursor}, or --all")),
            None => Ok(()),
        }
    }

    /// Prints `answer` if JSON is wanted, else `text`.
    fn done(&self, answer: &impl Serialize, text: &str) -> anyhow::Result<()> {
        if self.out.is_json() { self.out.json(answer) } else { self.out.line(text) }
    }
}

/// A list as the server would answer it, which may be several pages of it.
#[derive(Serialize)]
struct Listed {
    items: Vec<Answer>,
    next_cursor: Option<String>,
}

/// What the list at a path is of.
fn noun<'a>(path: &[&'a str]) -> &'a str {
    match path.last() {
        Some(&"bulk") => "changes of many jobs",
        Some(&"history") => "changes of the policy",
        Some(noun) => noun,
        None => "items",
    }
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
            vec!["carillon", "token", "create", "name", "--role", "king"],
        ] {
            let error = Cli::try_parse_from(&arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}
