//! The command line: commands that talk to a server over its API, and commands that build and try plugins.
//!
//! Role: defines the commands, reads their input, calls the API through `carillon-client`, and prints the results: text for people, or with
//! `--json` the server's response.
//!
//! Not: a store, a catalog or an engine; a command that calls a component itself uses the policy runtime in this process ([`local`]).
//!
//! Invariants: control characters in foreign text are escaped; a secret is never an argument.
//!
//! May import: `carillon-core`, `-config`, `-policy`, `-client`.

mod attempts;
mod audit;
mod batch;
mod bulk;
mod changes;
mod cluster;
pub mod config;
mod events;
mod group;
mod input;
mod job;
mod job_args;
mod job_target;
mod key;
mod lease;
pub mod local;
mod output;
mod plugin;
mod policy;
mod schedule;
pub mod secret;
mod tenant;
mod token;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

pub use carillon_client::text::visible_lines;
pub use output::Output;

use carillon_client::answer::Answer;
use carillon_client::tls_files::TlsFiles;
use carillon_client::{Client, bodies};

/// Environment variables with the token, and with the file of the token.
const TOKEN: &str = "CARILLON_TOKEN";
const TOKEN_FILE: &str = "CARILLON_TOKEN_FILE";

/// Server to talk to, and format of the output.
#[derive(Debug, Args)]
pub struct Remote {
    /// URL of the server.
    #[arg(
        long,
        global = true,
        help_heading = "Server options",
        env = "CARILLON_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:7070"
    )]
    server: String,
    /// API token. Other users of the machine can read it here. Default: the variable CARILLON_TOKEN.
    #[arg(long, global = true, help_heading = "Server options", value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File whose first line is the API token; `-` for standard input. Default: the variable CARILLON_TOKEN_FILE.
    #[arg(long, global = true, help_heading = "Server options", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with certificate authorities, in PEM, that are trusted for an https server, besides those that the system trusts.
    #[arg(long, global = true, help_heading = "Server options", env = "CARILLON_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// File with a certificate and its private key, in PEM, for an https server that asks for one.
    #[arg(long, global = true, help_heading = "Server options", env = "CARILLON_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// Tenant to act for, for operators. Default: the token's tenant.
    #[arg(long, global = true, help_heading = "Server options", env = "CARILLON_TENANT", value_name = "NAME")]
    tenant: Option<String>,
    /// Print the server's response as JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

impl Remote {
    /// Returns the token: an option comes before the environment, and there the token before its file.
    fn token(&self) -> anyhow::Result<Option<String>> {
        let read = |option, path: &Path| secret::first_line(option, path).map(|token| Some(token.to_string()));
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(token) = &self.token {
            return Ok(Some(token.clone()).filter(|token| !token.is_empty()));
        }
        if let Some(path) = &self.token_file {
            return read("--token-file", path);
        }
        match (variable(TOKEN), variable(TOKEN_FILE)) {
            (Some(token), _) => Ok(Some(token.into_string().map_err(|_| anyhow::anyhow!("{TOKEN} is not UTF-8"))?)),
            (None, Some(path)) => read(TOKEN_FILE, Path::new(&path)),
            (None, None) => Ok(None),
        }
    }
}

/// Commands that talk to a server.
#[derive(Debug, Subcommand)]
pub enum RemoteCommand {
    /// Create, list, change, cancel and inspect jobs.
    #[command(subcommand)]
    Job(Box<job::Command>),
    /// Manage groups: bind policies and limits, pause, resume, count jobs.
    #[command(subcommand)]
    Group(group::Command),
    /// Follow events.
    Events(events::Events),
    /// Manage schedules, which create jobs repeatedly.
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Change many jobs of a group by filter.
    #[command(subcommand)]
    Bulk(Box<bulk::Command>),
    /// Lease jobs without a URL, and report their results.
    #[command(subcommand)]
    Lease(lease::Command),
    /// Manage the keys that signers use.
    #[command(subcommand)]
    Key(key::Command),
    /// Manage tenants.
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// Show the nodes that share a database.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Show the token's role and tenant, with the tenant's quota and defaults.
    Whoami,
    /// Manage API tokens.
    #[command(subcommand)]
    Token(token::Command),
    /// Read the audit log: who changed what, and which requests were refused.
    Audit(audit::Audit),
    /// Simulate policies, compare their versions, and put versions in force.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Create, test, upload and manage plugins.
    #[command(subcommand)]
    Plugin(plugin::Command),
}

/// Runs a command that talks to a server.
///
/// # Errors
/// Returns an error if the server cannot be reached or rejects the request, or if the output cannot be written.
pub async fn run_remote(command: RemoteCommand, remote: Remote) -> anyhow::Result<()> {
    let token = remote.token()?;
    let named = |file: Option<PathBuf>| file.filter(|file| !file.as_os_str().is_empty());
    let (ca_file, client_cert) = (named(remote.ca_file), named(remote.client_cert));
    let files = TlsFiles { authorities: ca_file.as_deref(), certificate: client_cert.as_deref() };
    let session = Session {
        client: Client::with_tls(files, &remote.server, token)?
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
        RemoteCommand::Audit(command) => command.run(&session).await,
        RemoteCommand::Policy(command) => command.run(&session).await,
        RemoteCommand::Plugin(command) => command.run(&session).await,
    }
}

/// Client, output and options of a command that talks to a server.
#[derive(Debug)]
struct Session {
    client: Client,
    out: Output,
}

/// Part of a list to show.
#[derive(Debug, Default, Args)]
pub struct Paging {
    /// Maximum number of items to show.
    #[arg(long, value_name = "N", conflicts_with = "all")]
    limit: Option<u32>,
    /// Cursor that the previous page printed.
    #[arg(long)]
    cursor: Option<String>,
    /// Show all pages.
    #[arg(long)]
    all: bool,
}

impl Session {
    /// Prints a list; `columns` are headings and JSON pointers into an item.
    async fn list(
        &self,
        path: &[&str],
        query: Vec<(&str, String)>,
        paging: &Paging,
        columns: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        self.list_as(path, query, paging, columns, Ok).await
    }

    /// Prints a list. `row` makes the rows of the table from the items.
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
            Some(cursor) => self.out.note(&format!("more items exist: continue with --cursor {cursor}, or use --all")),
            None => Ok(()),
        }
    }

    /// Prints `answer` with `--json`, else `text`.
    fn done(&self, answer: &impl Serialize, text: &str) -> anyhow::Result<()> {
        if self.out.is_json() { self.out.json(answer) } else { self.out.line(text) }
    }
}

/// List in the form of a server's response; it may combine several pages.
#[derive(Serialize)]
struct Listed {
    items: Vec<Answer>,
    next_cursor: Option<String>,
}

/// Returns the noun for the items of the list at a path.
fn noun<'a>(path: &[&'a str]) -> &'a str {
    match path.last() {
        Some(&"audit") => "audit entries",
        Some(&"bulk") => "bulk changes",
        Some(&"history") => "policy changes",
        Some(noun) => noun,
        None => "items",
    }
}
