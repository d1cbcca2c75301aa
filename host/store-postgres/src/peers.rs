//! [`Peers`]: the member list, and signals by `NOTIFY`.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgListener, PgPoolOptions, PgRow};
use uuid::Uuid;

use super::error::Failure;
use super::transaction::Verb;
use super::{PostgresStore, locks};
use carillon_core::clock::UnixMs;
use carillon_store::decode::Columns as _;
use carillon_store::documents::{millis, to_json};
use carillon_store::{Heartbeat, Member, MemberList, Peers, Signal, Signals, StoreError};

/// Channel of `NOTIFY`.
///
/// A message is a word and its sender: `jobs 0193…`.
const CHANNEL: &str = "carillon";

/// Words of the messages.
const JOBS: &str = "jobs";
const CATALOG: &str = "catalog";
const BEAT: &str = "beat";

/// Silence after which a listener's connection counts as dead.
///
/// Every node sends a message once a second, the listener's own node included.
const SILENCE: Duration = Duration::from_secs(5);

/// Longest time to begin to listen.
const LISTEN_WAIT: Duration = Duration::from_secs(10);

const TIME: &str = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT AS now";

/// The time is read once. A node that was considered dead and comes back counts as joining anew.
const PUT: &str = "
    WITH time AS MATERIALIZED (
        SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT AS now
    ), gone AS (
        DELETE FROM node WHERE id <> $1 AND beat_at < (SELECT now FROM time) - $4
    ), own AS (
        INSERT INTO node (id, since, beat_at, doc) SELECT $1, now, now, $2 FROM time
        ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at, doc = excluded.doc,
            since = CASE WHEN node.beat_at < excluded.beat_at - $3 THEN excluded.since ELSE node.since END
        RETURNING *
    )
    SELECT id, since, beat_at, doc, now FROM own CROSS JOIN time
    UNION ALL
    SELECT id, since, beat_at, doc, now FROM node CROSS JOIN time WHERE id <> $1 AND beat_at >= now - $4";

const LEAVE: &str = "DELETE FROM node WHERE id = $1";

/// Counts the nodes that have given a sign of life within a time.
const SERVERS: &str = "
    SELECT count(*) AS servers FROM node
    WHERE beat_at >= floor(extract(epoch FROM clock_timestamp()) * 1000)::BIGINT - $1";

/// Counts the servers that use the database; no other one joins until the end of the transaction.
pub(super) async fn servers(db: &mut PgConnection, silence: Duration) -> Result<u64, Failure> {
    locks::take_nodes(db).await?;
    sqlx::query(SERVERS).bind(millis(silence)).fetch_one(db).await?.number("servers")
}

async fn time(db: &mut PgConnection) -> Result<UnixMs, Failure> {
    Ok(UnixMs(sqlx::query(TIME).fetch_one(db).await?.try_get("now")?))
}

async fn leave(db: &mut PgConnection, node: Uuid) -> Result<(), Failure> {
    sqlx::query(LEAVE).bind(node).execute(db).await?;
    Ok(())
}

const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// Sends a word to all nodes, when the transaction is committed.
async fn notify(db: &mut PgConnection, word: &str, from: Option<Uuid>) -> Result<(), Failure> {
    let text = from.map_or_else(|| word.to_owned(), |from| format!("{word} {from}"));
    sqlx::query(NOTIFY).bind(CHANNEL).bind(text).execute(db).await?;
    Ok(())
}

/// Announces that the configuration has changed.
pub(super) async fn notify_catalog(db: &mut PgConnection) -> Result<(), Failure> {
    notify(db, CATALOG, None).await
}

#[async_trait]
impl Verb for Heartbeat {
    type Done = MemberList;

    /// Nodes that join do so one after the other. Nodes that are members already do not wait.
    async fn run(&self, db: &mut PgConnection) -> Result<MemberList, Failure> {
        if self.comes {
            locks::take_nodes(db).await?;
        }
        let (life, forget) = (millis(self.life), millis(self.forget));
        let query = sqlx::query(PUT).bind(self.node).bind(to_json(&self.doc)?).bind(life).bind(forget);
        let found = query.fetch_all(&mut *db).await?;
        notify(db, BEAT, Some(self.node)).await?;
        let mut members = found.iter().map(member).collect::<Result<Vec<_>, _>>()?;
        members.sort_by_key(|member| member.id);
        let first = found.first().ok_or_else(|| StoreError::Corrupt("a node does not find itself".to_owned()))?;
        Ok(MemberList { members, now: UnixMs(first.try_get("now")?) })
    }
}

fn member(row: &PgRow) -> Result<Member, Failure> {
    Ok(Member {
        id: row.try_get("id")?,
        since: UnixMs(row.try_get("since")?),
        beat_at: UnixMs(row.try_get("beat_at")?),
        doc: row.document("doc")?,
    })
}

#[async_trait]
impl Peers for PostgresStore {
    async fn time(&self) -> Result<UnixMs, StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(time(&mut db)).await?)
    }

    async fn beat(&self, beat: Heartbeat) -> Result<MemberList, StoreError> {
        self.database.call(&beat).await
    }

    async fn leave(&self, node: Uuid) -> Result<(), StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(leave(&mut db, node)).await?)
    }

    async fn tell(&self, from: Uuid) -> Result<(), StoreError> {
        let mut db = self.database.connections.take().await?;
        Ok(self.database.connections.bounded(notify(&mut db, JOBS, Some(from))).await?)
    }

    async fn listen(&self, own: Uuid) -> Result<Box<dyn Signals>, StoreError> {
        // A separate connection, which is closed with the listener, whatever its state is.
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(self.database.connections.options());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let listener =
            tokio::time::timeout(LISTEN_WAIT, listening).await.map_err(|_| silent())?.map_err(Failure::from)?;
        Ok(Box::new(Channel { listener, own: own.to_string() }))
    }
}

fn silent() -> StoreError {
    StoreError::Unavailable("nothing is heard from the database".to_owned())
}

/// A listening connection.
struct Channel {
    listener: PgListener,
    own: String,
}

#[async_trait]
impl Signals for Channel {
    async fn next(&mut self) -> Result<Signal, StoreError> {
        loop {
            let heard = tokio::time::timeout(SILENCE, self.listener.try_recv()).await.map_err(|_| silent())?;
            let Some(heard) = heard.map_err(Failure::from)? else { return Err(silent()) };
            match heard.payload().split_once(' ') {
                Some((JOBS, from)) if from != self.own => return Ok(Signal::Jobs),
                None if heard.payload() == CATALOG => return Ok(Signal::Catalog),
                // Messages of newer versions, and this node's own messages.
                _ => {}
            }
        }
    }
}
