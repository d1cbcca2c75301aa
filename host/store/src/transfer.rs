//! Common form of the rows that move from one database to the other.
//!
//! The [`TABLES`] name the columns and the key of each table. A [`Row`] that was read from either database consists of the same [`Cell`]s, so
//! that rows can be compared by the SHA-256 of their cells, and tables by that of their rows. Each database builds its own statements from
//! these columns (`sqlite/source.rs`, `postgres/import/rows.rs`); a test of each compares the columns with the schema.

mod tables;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use serde::Deserialize;

pub use self::tables::TABLES;
use super::StoreError;
use super::labels::labels;
use carillon_core::job::Metadata;

/// A table that both databases have.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Name of the table in PostgreSQL.
    pub name: &'static str,
    /// Table in SQLite, and the condition that selects its rows there.
    pub source: (&'static str, &'static str),
    /// Columns in the order of a [`Row`]'s cells.
    pub columns: &'static [Column],
    /// Number of leading columns that are the key.
    keys: usize,
}

/// A column, under the same name in both databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name of the column.
    pub name: &'static str,
    /// Type of its values.
    pub form: Form,
}

/// Type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An integer.
    Number,
    /// A boolean; a number in SQLite.
    Flag,
    /// Text.
    ///
    /// PostgreSQL cannot store the character zero: it becomes U+FFFD.
    Text,
    /// Bytes.
    Bytes,
    /// A job's id; 16 bytes in SQLite.
    Id,
    /// The index of a job's metadata in PostgreSQL.
    ///
    /// SQLite has the metadata in `spec` only.
    Labels,
}

impl Table {
    /// Returns the columns of the key.
    pub fn key(&self) -> &'static [Column] {
        &self.columns[..self.keys]
    }
}

/// Counters that are not stored in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Highest id that an entity has ever had; ids are not used again.
    pub entity: i64,
    /// Generation of the configuration: the number of its changes.
    pub generation: i64,
}

impl Counters {
    /// Returns the checksum, as of a table with one row.
    #[must_use]
    pub fn checksum(self) -> Checksum {
        let mut checksum = Checksum::default();
        let cells = vec![Cell::Number(self.entity), Cell::Number(self.generation)];
        checksum.add(&Row { cells, keys: 0 }.digest());
        checksum
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    /// NULL.
    Null,
    /// A number, or a flag as 0 or 1.
    Number(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A job's id.
    Id(Uuid),
}

impl Cell {
    /// Estimates the memory that the cell takes, in bytes.
    fn size(&self) -> usize {
        match self {
            Self::Null | Self::Number(_) | Self::Id(_) => size_of::<Self>(),
            Self::Text(text) => size_of::<Self>() + text.len(),
            Self::Bytes(bytes) => size_of::<Self>() + bytes.len(),
        }
    }

    /// Adds a tag and the value: nothing for NULL (0), eight bytes for a number (1); for text (2) and bytes (3; an id is its 16 bytes) the
    /// length in eight bytes and then the content.
    ///
    /// Numbers and lengths are big-endian.
    fn hash(&self, hasher: &mut Sha256) {
        let mut sized = |tag: u8, bytes: &[u8]| {
            hasher.update([tag]);
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        match self {
            Self::Null => hasher.update([0]),
            Self::Number(number) => {
                hasher.update([1]);
                hasher.update(number.to_be_bytes());
            }
            Self::Text(text) => sized(2, text.as_bytes()),
            Self::Bytes(bytes) => sized(3, bytes),
            Self::Id(id) => sized(3, id.as_bytes()),
        }
    }
}

/// Cells that identify a row within its table.
pub type Key = Vec<Cell>;

/// Range of a table's keys: above `after`, and up to `last`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageRange<'a> {
    /// Key before the range; `None` if it begins with the first key.
    pub after: Option<&'a [Cell]>,
    /// Last key of the range; `None` if it ends with the last key.
    pub last: Option<&'a [Cell]>,
}

/// SHA-256 of a row.
pub type RowDigest = [u8; 32];

/// A row with all of its cells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Cells in the order of the table's columns.
    pub cells: Vec<Cell>,
    /// Number of leading cells that are the key.
    keys: usize,
}

impl Row {
    /// Makes a row of `table`.
    pub fn new(table: &Table, cells: Vec<Cell>) -> Self {
        Self { cells, keys: table.keys }
    }

    /// Returns the cells that identify the row.
    #[must_use]
    pub fn key(&self) -> &[Cell] {
        &self.cells[..self.keys]
    }

    /// Returns the SHA-256 of the cells, one after the other.
    #[must_use]
    pub fn digest(&self) -> RowDigest {
        let mut hasher = Sha256::new();
        self.cells.iter().for_each(|cell| cell.hash(&mut hasher));
        hasher.finalize().into()
    }

    /// Estimates the memory that the row takes, in bytes.
    pub fn size(&self) -> usize {
        self.cells.iter().map(Cell::size).sum()
    }
}

/// Formats a key for people.
#[must_use]
pub fn shown(key: &[Cell]) -> String {
    let cell = |cell: &Cell| match cell {
        Cell::Null => "NULL".to_owned(),
        Cell::Number(number) => number.to_string(),
        Cell::Text(text) => text.clone(),
        Cell::Bytes(bytes) => hex::encode(bytes),
        Cell::Id(id) => id.to_string(),
    };
    key.iter().map(cell).collect::<Vec<_>>().join(" ")
}

/// Number of a table's rows, and the SHA-256 of their digests in the order of their keys.
#[derive(Clone, Debug, Default)]
pub struct Checksum {
    /// Number of rows.
    pub rows: u64,
    hasher: Sha256,
}

impl Checksum {
    /// Adds the next row.
    pub fn add(&mut self, digest: &RowDigest) {
        self.rows += 1;
        self.hasher.update(digest);
    }

    /// Returns the SHA-256 in hex.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }
}

/// Returns a text in the form that PostgreSQL can store.
pub fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Returns the labels of a job, as a [`Form::Labels`] column, from its stored spec.
///
/// A spec that cannot be read has no labels: its job moves unchanged, and stays as unreadable as it was.
pub fn labels_of(spec: &str) -> Result<Option<String>, StoreError> {
    #[derive(Deserialize)]
    struct Labelled {
        #[serde(default)]
        metadata: Metadata,
    }
    match serde_json::from_str::<Labelled>(spec) {
        Ok(labelled) => labels(&labelled.metadata),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: Vec<Cell>) -> Row {
        Row::new(&TABLES[0], cells)
    }

    #[test]
    fn a_digest_knows_where_cells_end_and_what_they_are() {
        let text = |text: &str| Cell::Text(text.to_owned());
        let different = [
            row(vec![text("ab"), text("c")]),
            row(vec![text("a"), text("bc")]),
            row(vec![text("a"), text("bc"), Cell::Null]),
            row(vec![Cell::Bytes(b"ab".to_vec()), text("c")]),
            row(vec![Cell::Number(0)]),
            row(vec![Cell::Null]),
            row(vec![text("")]),
            row(vec![Cell::Number(1)]),
        ];
        let digests: std::collections::HashSet<RowDigest> = different.iter().map(Row::digest).collect();
        assert_eq!(digests.len(), different.len());
    }

    #[test]
    fn a_digest_is_what_the_documentation_says() {
        let bytes: Vec<u8> = [&[1][..], &7_i64.to_be_bytes(), &[0, 2], &1_u64.to_be_bytes(), b"x"].concat();
        let row = row(vec![Cell::Number(7), Cell::Null, Cell::Text("x".to_owned())]);
        assert_eq!(row.digest()[..], Sha256::digest(bytes)[..]);
    }

    #[test]
    fn labels_come_from_the_spec() {
        let labels = labels_of(r#"{"target": null, "metadata": {"a": "b c", "n": {"x": "1"}}}"#).unwrap();
        assert_eq!(labels.unwrap(), r#"["a=b%20c","n%2Ex=1"]"#);
        assert_eq!(labels_of("{}").unwrap(), None);
        assert_eq!(labels_of("no spec").unwrap(), None);
    }
}
