//! Rows of configured entities.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Columns, Failure};
use crate::StoreError;
use crate::entities::{Changes, Entity, Kind};

/// Reads an entity that this program has just written.
pub fn entity<E: Failure>(row: &impl Columns<E>) -> Result<Entity, E> {
    let kind = row.text("kind")?;
    let kind = kind_of(kind).ok_or_else(|| StoreError::Corrupt(format!("`{kind}` is not a kind of entity")))?;
    entity_with(row, kind, row.document("doc")?)
}

/// Reads an entity, whatever its document is.
///
/// A document that is not JSON becomes null, from which nothing is read. An entity of a kind that this program does not know is left out.
/// Neither keeps the server from starting.
fn readable<E: Failure>(row: &impl Columns<E>) -> Result<Option<Entity>, E> {
    let kind = row.text("kind")?;
    let Some(known) = kind_of(kind) else {
        tracing::error!(kind, "ignored a stored entity of an unknown kind");
        return Ok(None);
    };
    entity_with(row, known, row.document("doc").unwrap_or(Value::Null)).map(Some)
}

/// Reads the kind of an entity; `None` for one that this program does not know.
pub fn kind<E: Failure>(row: &impl Columns<E>) -> Result<Option<Kind>, E> {
    Ok(kind_of(row.text("kind")?))
}

fn kind_of(text: &str) -> Option<Kind> {
    Kind::ALL.into_iter().find(|known| known.as_str() == text)
}

fn entity_with<E: Failure>(row: &impl Columns<E>, kind: Kind, doc: Value) -> Result<Entity, E> {
    Ok(Entity {
        id: row.i64("id")?,
        tenant: row.i64("tenant")?,
        kind,
        name: row.text("name")?.to_owned(),
        version: row.i64("version")?,
        doc,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

/// Reads all entities and their generation, which is in `column` of every row.
///
/// Where there is no entity, there is one row, whose other columns are NULL.
pub fn loaded<E: Failure, R: Columns<E>>(rows: &[R], column: &str) -> Result<(i64, Vec<Entity>), E> {
    let first = rows.first().ok_or_else(|| StoreError::Corrupt("the database has no generation".to_owned()))?;
    let mut entities = Vec::with_capacity(rows.len());
    for row in rows {
        if row.opt_i64("id")?.is_some() {
            entities.extend(readable(row)?);
        }
    }
    Ok((first.i64(column)?, entities))
}

/// Reads the changed entities, of which those without a row are gone.
pub fn changes<E: Failure, R: Columns<E>>(generation: i64, mut ids: BTreeSet<i64>, rows: &[R]) -> Result<Changes, E> {
    let changed: Vec<_> = rows.iter().filter_map(|row| readable(row).transpose()).collect::<Result<_, E>>()?;
    for entity in &changed {
        ids.remove(&entity.id);
    }
    Ok(Changes { generation, changed, gone: ids.into_iter().collect() })
}

/// Reads the id and the version of an entity.
pub fn id_and_version<E: Failure>(row: &impl Columns<E>) -> Result<(i64, i64), E> {
    Ok((row.i64("id")?, row.i64("version")?))
}
