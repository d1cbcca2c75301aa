//! Mark of a database that is, or was, filled from another one.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::error::Failure;
use carillon_store::StoreError;

pub(super) const LOOK: &str = "
    SELECT to_regclass('carillon') IS NOT NULL AS ours, to_regclass('migration') IS NOT NULL AS marked";

pub(super) const STAGE: &str = "SELECT source, stage FROM migration";

/// Progress of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Rows are being written for the first time.
    Copying,
    /// All rows were written once; rows that changed since are written again.
    Copied,
    /// Nodes may serve from the database.
    Complete,
}

impl Stage {
    /// Returns the stage's name in the database.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Copied => "copied",
            Self::Complete => "complete",
        }
    }

    pub(super) fn read(name: &str) -> Result<Self, StoreError> {
        let stages = [Self::Copying, Self::Copied, Self::Complete];
        let found = stages.into_iter().find(|stage| stage.as_str() == name);
        found.ok_or_else(|| StoreError::Corrupt(format!("`{name}` is not a stage of a migration")))
    }
}

/// Refuses a database that has the mark of an unfinished migration.
pub(super) async fn refuse_unfinished(db: &mut PgConnection) -> Result<(), Failure> {
    let row = sqlx::query(LOOK).fetch_one(&mut *db).await?;
    if row.try_get::<bool, _>("marked")? {
        let row = sqlx::query(STAGE).fetch_one(db).await?;
        if Stage::read(row.try_get("stage")?)? != Stage::Complete {
            let text = "a migration into it is not finished: run `carillon migrate sqlite-to-postgres` again";
            return Err(StoreError::Corrupt(text.to_owned()).into());
        }
    }
    Ok(())
}
