//! Hosts of the database: one host, or several of which one accepts writes.
//!
//! The URL is written as for other programs of PostgreSQL (libpq, section "Specifying Multiple Hosts"): hosts and their ports are lists with
//! commas, `postgres://user@a:5432,b:5432/database?target_session_attrs=read-write` or `?host=a,b&port=5432,5433`. The driver supports one
//! host only, so each host gets options of its own. The hosts are asked which of them is the primary when no connection can be acquired, and
//! a new connection to a standby is refused: so after a failover, nodes connect to the host that accepts writes, and to no other.

use std::time::Duration;

use futures_util::future::select_ok;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use tokio::time::timeout;

use super::error::Failure;
use carillon_store::StoreError;

/// Values of `target_session_attrs` that mean the same for a node, which writes.
const WRITERS: [&str; 2] = ["read-write", "primary"];

const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

const IS_WRITER: &str = "SELECT NOT pg_is_in_recovery()";

/// Error message for a host that does not accept writes.
pub(super) const STANDBY: &str = "the database is a standby, which cannot be written to";

/// One or more hosts of one database.
#[derive(Clone, Debug)]
pub(super) struct Hosts(Vec<PgConnectOptions>);

impl Hosts {
    /// Parses a URL.
    ///
    /// The error does not repeat the URL, which may contain a password.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let options = |url: String| {
            let options = url.parse::<PgConnectOptions>().map_err(|error| error.to_string())?;
            Ok(options.disable_statement_logging())
        };
        Ok(Self(split(url)?.into_iter().map(options).collect::<Result<_, String>>()?))
    }

    pub(super) fn are_several(&self) -> bool {
        self.0.len() > 1
    }

    /// Returns the host that accepts writes, and a connection to it.
    ///
    /// All hosts are asked at once, and none is waited for longer than `wait`.
    pub(super) async fn writer(&self, wait: Duration) -> Result<(&PgConnectOptions, PgConnection), Failure> {
        let asked = self.0.iter().map(|options| Box::pin(ask(options, wait)));
        Ok(select_ok(asked).await?.0)
    }
}

async fn ask(options: &PgConnectOptions, wait: Duration) -> Result<(&PgConnectOptions, PgConnection), Failure> {
    match timeout(wait, connect(options)).await {
        Ok(connected) => Ok((options, connected?)),
        Err(_) => Err(StoreError::Unavailable("the database does not respond".to_owned()).into()),
    }
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Failure> {
    let mut connection = options.connect().await?;
    if is_writer(&mut connection).await? {
        Ok(connection)
    } else {
        Err(StoreError::Unavailable(STANDBY.to_owned()).into())
    }
}

/// Returns whether the connection is to the primary.
pub(super) async fn is_writer(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(IS_WRITER).fetch_one(connection).await
}

/// Returns a URL for each host.
fn split(url: &str) -> Result<Vec<String>, String> {
    let scheme = SCHEMES.into_iter().find(|scheme| url.starts_with(scheme));
    let scheme = scheme.ok_or("it does not begin with `postgres://`")?;
    let rest = url.get(scheme.len()..).unwrap_or_default();
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    let (mut lists, mut kept) = (vec![("", hosts.split(',').map(str::to_owned).collect::<Vec<_>>())], Vec::new());
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("target_session_attrs", wanted)) => {
                if !WRITERS.contains(&wanted) {
                    return Err("a node writes: `target_session_attrs` can only be `read-write`".to_owned());
                }
            }
            Some((name @ ("host" | "hostaddr" | "port"), values)) => {
                let values = values.replace("%2C", ",").replace("%2c", ",");
                lists.push((name, values.split(',').map(str::to_owned).collect()));
            }
            _ => kept.push(pair),
        }
    }
    let count = lists.iter().map(|(_, values)| values.len()).max().unwrap_or(1);
    if lists.iter().any(|(_, values)| values.len() != 1 && values.len() != count) {
        return Err("its lists of hosts and ports differ in length".to_owned());
    }
    let of_host = |index: usize| {
        let value = |values: &[String]| values.get(index).or(values.first()).cloned().unwrap_or_default();
        let mut host = String::new();
        let mut query: Vec<String> = kept.iter().map(|pair| (*pair).to_owned()).collect();
        for (name, values) in &lists {
            match *name {
                "" => host = value(values),
                name => query.push(format!("{name}={}", value(values))),
            }
        }
        format!("{scheme}{user}{host}{path}?{}", query.join("&"))
    };
    Ok((0..count).map(of_host).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(url: &str) -> Vec<(String, u16)> {
        let hosts = Hosts::parse(url).unwrap();
        hosts.0.iter().map(|options| (options.get_host().to_owned(), options.get_port())).collect()
    }

    #[test]
    fn a_url_names_one_host_or_several() {
        let two = [("a".to_owned(), 5433), ("b".to_owned(), 5434)];
        assert_eq!(places("postgres://u:p@a:5433/d"), two[..1]);
        for url in [
            "postgres://u:p@a:5433,b:5434/d",
            "postgresql://u:p@a:5433,b:5434/d?target_session_attrs=read-write",
            "postgres://u@a,b/d?port=5433,5434&sslmode=disable",
            "postgres:///d?host=a,b&port=5433%2C5434&target_session_attrs=primary",
        ] {
            assert_eq!(places(url), two, "{url}");
        }
        assert_eq!(places("postgres://a,b/d?port=7"), [("a".to_owned(), 7), ("b".to_owned(), 7)]);
    }

    #[test]
    fn the_rest_of_the_url_holds_for_each_host() {
        let hosts = Hosts::parse("postgres://u:p%40@a:1,b:2/d?sslmode=require&application_name=x").unwrap();
        for options in &hosts.0 {
            assert_eq!((options.get_username(), options.get_database()), ("u", Some("d")));
            assert_eq!(options.get_application_name(), Some("x"));
        }
        let socket = Hosts::parse("postgres://u@localhost/d?host=/var/run").unwrap();
        assert_eq!(socket.0[0].get_socket().unwrap(), std::path::Path::new("/var/run"));
        assert!(!socket.are_several());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_the_password() {
        for (url, expected) in [
            ("mysql://u:secret@a/d", "does not begin with"),
            ("postgres://u:secret@a,b/d?port=1,2,3", "differ in length"),
            ("postgres://u:secret@a,b/d?target_session_attrs=standby", "a node writes"),
            ("postgres://u:secret@a:port/d", "port"),
        ] {
            let said = Hosts::parse(url).unwrap_err();
            assert!(said.contains(expected) && !said.contains("secret"), "{said}");
        }
    }
}
