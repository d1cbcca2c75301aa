//! The audit log: how entries follow each other, how they are read, and how a changed one is found.
//!
//! Each node has a chain of entries, numbered from 1. An entry has the digest of the one before it, so that a change, a removal in the middle and
//! a removal of the newest entries are found by [`check`]. A removal of the oldest ones is the retention's. Nodes do not share a chain, because
//! each write would then wait for those of all other nodes; a chain belongs to the name of a node, whichever process has it.

mod changed;

use async_trait::async_trait;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::StoreError;
use super::decode::{Columns, Failure};
use super::documents::to_json;
use super::entities::{Entity, Kind};
use super::recorded::Audit;
use carillon_core::audit::{AuditEntry, AuditId};
use carillon_core::clock::UnixMs;

pub use self::changed::changed;

/// Newest entry of a node's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// Name of the node.
    pub node: String,
    /// Number of the entry.
    pub number: i64,
    /// Digest of the entry.
    pub digest: String,
}

impl ChainHead {
    /// Returns the head of a chain without entries.
    #[must_use]
    pub fn empty(node: &str) -> Self {
        Self { node: node.to_owned(), number: 0, digest: String::new() }
    }
}

/// Entry in the form of its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Id of the entry.
    pub id: AuditId,
    /// Time of the entry, as in `doc`; so are the following members up to `name`.
    pub at: UnixMs,
    /// Name of the node.
    pub node: String,
    /// Number of the owning tenant; 0 for none.
    pub tenant: i64,
    /// Id of the actor.
    pub actor: String,
    /// Verb.
    pub verb: String,
    /// Kind of the object.
    pub kind: String,
    /// Name of the object.
    pub name: Option<String>,
    /// Number in the node's chain, from 1.
    pub number: i64,
    /// Digest of the entry before it; empty for the first.
    pub previous: String,
    /// SHA-256 in hex of the digest before it, the node, the number and the document, each followed by a line break.
    pub digest: String,
    /// The entry as JSON.
    pub doc: String,
}

impl StoredEntry {
    /// Makes the row that follows `head`.
    pub fn after(head: &ChainHead, entry: &AuditEntry) -> Result<Self, StoreError> {
        let (number, doc) = (head.number + 1, to_json(entry)?);
        Ok(Self {
            id: entry.id,
            at: entry.at,
            node: entry.node.clone(),
            tenant: entry.tenant_id(),
            actor: entry.actor.id().to_owned(),
            verb: entry.verb.as_str().to_owned(),
            kind: entry.object.kind.clone(),
            name: entry.object.name.clone(),
            number,
            previous: head.digest.clone(),
            digest: digest(&head.digest, &entry.node, number, &doc),
            doc,
        })
    }

    /// Reads a row; `doc` may be anything.
    pub fn read<E: Failure>(row: &impl Columns<E>) -> Result<Self, E> {
        let text = |column| row.text(column).map(str::to_owned);
        Ok(Self {
            id: AuditId(row.job_id("id")?.0),
            at: row.time("at")?,
            node: text("node")?,
            tenant: row.i64("tenant")?,
            actor: text("actor")?,
            verb: text("verb")?,
            kind: text("kind")?,
            name: row.opt_text("name")?.map(str::to_owned),
            number: row.i64("number")?,
            previous: text("previous")?,
            digest: text("digest")?,
            doc: text("doc")?,
        })
    }

    /// Returns the entry with its place in the chain; `None` if its document cannot be read, as after a change by hand.
    #[must_use]
    pub fn entry(self) -> Option<Chained> {
        let entry = serde_json::from_str(&self.doc);
        let entry = entry.inspect_err(|error| tracing::error!(id = %self.id, %error, "audit entry cannot be read"));
        Some(Chained { entry: entry.ok()?, number: self.number, previous: self.previous, digest: self.digest })
    }

    fn head(&self) -> ChainHead {
        ChainHead { node: self.node.clone(), number: self.number, digest: self.digest.clone() }
    }
}

/// Entry, with its place in the node's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chained {
    /// The entry.
    pub entry: AuditEntry,
    /// Number in the node's chain, from 1.
    pub number: i64,
    /// Digest of the entry before it; empty for the first.
    pub previous: String,
    /// Digest of the entry.
    pub digest: String,
}

fn digest(previous: &str, node: &str, number: i64, doc: &str) -> String {
    hex::encode(Sha256::digest(format!("{previous}\n{node}\n{number}\n{doc}\n")))
}

/// Fault in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChainFault {
    /// The entry is not what was written.
    Changed,
    /// Entries before this one are missing, or were replaced.
    Missing,
    /// The newest entries of the chain are missing.
    Truncated,
}

/// Checks the row that follows `before`; without it, the row is the first one that is kept.
///
/// # Errors
/// Returns the fault. The check goes on with the returned head, or with the row's own.
pub fn check(before: Option<&ChainHead>, row: &StoredEntry) -> Result<(), ChainFault> {
    let written = serde_json::from_str(&row.doc).ok().and_then(|entry: AuditEntry| {
        let head = ChainHead { node: row.node.clone(), number: row.number - 1, digest: row.previous.clone() };
        StoredEntry::after(&head, &entry).ok()
    });
    if written.is_none_or(|written| StoredEntry { doc: row.doc.clone(), digest: row.digest.clone(), ..written } != *row)
        || digest(&row.previous, &row.node, row.number, &row.doc) != row.digest
    {
        return Err(ChainFault::Changed);
    }
    match before.filter(|before| before.node == row.node) {
        Some(before) if before.number + 1 != row.number || before.digest != row.previous => Err(ChainFault::Missing),
        _ => Ok(()),
    }
}

/// Fault in a chain, with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct BrokenLink {
    /// Name of the node.
    pub node: String,
    /// Number of the entry in the node's chain.
    pub number: i64,
    /// Fault.
    pub fault: ChainFault,
}

/// Checks rows in the order of nodes and numbers, which follow `before`, and returns the faults and the last row's head.
///
/// `heads` are those of all chains. A chain is compared with its head when its last row is among these, which is known when a row of another
/// node follows, or if the rows are `complete`.
#[must_use]
pub fn check_rows(
    before: Option<ChainHead>,
    rows: &[StoredEntry],
    heads: &[ChainHead],
    rest: Rest,
) -> (Vec<BrokenLink>, Option<ChainHead>) {
    let (mut broken, mut last) = (Vec::new(), before);
    for row in rows {
        if last.as_ref().is_none_or(|last| last.node != row.node) {
            broken.extend(truncated(heads, last.as_ref(), Some(&row.node)));
        }
        if let Err(fault) = check(last.as_ref(), row) {
            broken.push(BrokenLink { node: row.node.clone(), number: row.number, fault });
        }
        last = Some(row.head());
    }
    if rest == Rest::None {
        broken.extend(truncated(heads, last.as_ref(), None));
    }
    (broken, last)
}

/// Returns the chains that should go on after `last`, and those of which there is no entry between its node and `next`.
fn truncated(heads: &[ChainHead], last: Option<&ChainHead>, next: Option<&str>) -> Vec<BrokenLink> {
    let missing = |head: &ChainHead| {
        let seen = last.filter(|last| last.node == head.node).map_or(0, |last| last.number);
        let is_passed =
            last.is_none_or(|last| head.node >= last.node) && next.is_none_or(|next| head.node.as_str() < next);
        let link = BrokenLink { node: head.node.clone(), number: seen + 1, fault: ChainFault::Truncated };
        (is_passed && head.number > seen).then_some(link)
    };
    heads.iter().filter_map(missing).collect()
}

/// Whether rows follow those of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// No row follows.
    None,
    /// Rows follow, which are checked next.
    Some,
}

/// Choice of entries. All of them if nothing is given.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Only entries of the tenant with this number.
    pub tenant: Option<i64>,
    /// Only those of the actor with this id.
    pub actor: Option<String>,
    /// Only those with this verb.
    pub verb: Option<String>,
    /// Only those about a thing of this kind.
    pub kind: Option<String>,
    /// Only those about a thing of this name.
    pub name: Option<String>,
    /// Only those at this time or later.
    pub from: Option<UnixMs>,
    /// Only those before this time.
    pub to: Option<UnixMs>,
    /// Only those before this entry.
    pub before: Option<AuditId>,
    /// Largest number of entries.
    pub limit: u32,
}

/// Verbs on the audit log. Entries of changes are written by [`Entities`](super::Entities), in the transaction of the change.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Writes an entry that belongs to no change of configuration.
    async fn append(&self, entry: AuditEntry) -> Result<(), StoreError>;

    /// Returns a page of entries, newest first. The cost for one tenant does not grow with the entries of others.
    async fn audit(&self, query: AuditQuery) -> Result<Vec<Chained>, StoreError>;

    /// Returns at most `limit` rows after this node's entry of this number, in the order of nodes and numbers.
    async fn audit_chain(&self, after: (String, i64), limit: u32) -> Result<Vec<StoredEntry>, StoreError>;

    /// Returns the newest entry of each chain.
    async fn audit_heads(&self) -> Result<Vec<ChainHead>, StoreError>;
}

/// Returns the entry of a put, with what its transaction knows; `None` for [`Audit::Upkeep`].
#[must_use]
pub fn entry_of_put(audit: &Audit, before: Option<&serde_json::Value>, entity: &Entity) -> Option<AuditEntry> {
    let Audit::Recorded(entry) = audit else { return None };
    let mut entry = AuditEntry::clone(entry);
    entry.changed = changed(entity.kind, before, &entity.doc);
    entry.object.version.get_or_insert_with(|| entity.version.to_string());
    if let (Kind::Tenant, Some(tenant)) = (entity.kind, &mut entry.tenant) {
        tenant.id = entity.id;
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use carillon_core::audit::{AuditObject, Origin, Outcome, Verb};
    use carillon_core::clock::SystemClock;

    fn entry(name: &str) -> AuditEntry {
        AuditEntry {
            id: AuditId::new(&SystemClock),
            at: UnixMs(7),
            node: "n".to_owned(),
            actor: Origin::system().actor,
            tenant: None,
            verb: Verb::KEY_PUT,
            object: AuditObject::new("key", Some(name.to_owned())),
            changed: Vec::new(),
            address: None,
            request_id: None,
            outcome: Outcome::Done,
            count: 1,
        }
    }

    fn chain(count: usize) -> Vec<StoredEntry> {
        let mut rows: Vec<StoredEntry> = Vec::new();
        for number in 0..count {
            let head = rows.last().map_or_else(|| ChainHead::empty("n"), StoredEntry::head);
            rows.push(StoredEntry::after(&head, &entry(&number.to_string())).unwrap());
        }
        rows
    }

    fn faults(rows: &[StoredEntry], head: &ChainHead) -> Vec<(i64, ChainFault)> {
        let (broken, _) = check_rows(None, rows, std::slice::from_ref(head), Rest::None);
        broken.into_iter().map(|link| (link.number, link.fault)).collect()
    }

    #[test]
    fn changed_missing_and_truncated_entries_are_found() {
        let rows = chain(5);
        let head = rows[4].head();
        assert_eq!(faults(&rows, &head), []);
        assert_eq!(faults(&rows[2..], &head), [], "the retention removes the oldest");
        assert_eq!(faults(&rows[..3], &head), [(4, ChainFault::Truncated)]);
        assert_eq!(faults(&[], &head), [(1, ChainFault::Truncated)]);
        assert_eq!(faults(&[&rows[..1], &rows[2..]].concat(), &head), [(3, ChainFault::Missing)]);
        let change = |change: fn(&mut StoredEntry)| {
            let mut rows = rows.clone();
            change(&mut rows[1]);
            faults(&rows, &head)
        };
        let found = [(2, ChainFault::Changed)];
        assert_eq!(change(|row| row.doc = row.doc.replace("system", "token")), found);
        assert_eq!(change(|row| row.tenant = 9), found);
        assert_eq!(change(|row| row.actor = "other".to_owned()), found);
        assert_eq!(change(|row| row.at = UnixMs(8)), found);
        let forged = StoredEntry::after(&rows[0].head(), &entry("forged")).unwrap();
        let mut rows = rows.clone();
        rows[1] = forged;
        assert_eq!(faults(&rows, &head), [(3, ChainFault::Missing)], "the next one does not follow it");
    }

    #[test]
    fn chains_of_nodes_are_checked_one_after_the_other() {
        let mut rows = chain(2);
        let head = rows[1].head();
        let other = AuditEntry { node: "o".to_owned(), ..entry("x") };
        rows.push(StoredEntry::after(&ChainHead::empty("o"), &other).unwrap());
        let heads = [head.clone(), rows[2].head()];
        assert_eq!(check_rows(None, &rows, &heads, Rest::None).0, []);
        let (broken, last) = check_rows(None, &rows[..1], &heads, Rest::Some);
        assert_eq!((broken, last.as_ref()), (Vec::new(), Some(&rows[0].head())), "the rest follows");
        let (broken, _) = check_rows(last, &rows[2..], &heads, Rest::None);
        assert_eq!(broken, [BrokenLink { node: "n".to_owned(), number: 2, fault: ChainFault::Truncated }]);
    }
}
