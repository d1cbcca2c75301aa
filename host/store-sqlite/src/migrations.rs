//! Built-in migrations of the embedded database.
//!
//! A database records the number, the title and a digest of each script that it has run.

use std::sync::LazyLock;

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A script and its title, as in the name of its file: `0002_scheduling.sql` is the second, `scheduling`.
type Script = (&'static str, &'static str);

const SCRIPTS: [Script; 8] = [
    ("initial", include_str!("../migrations/0001_initial.sql")),
    ("scheduling", include_str!("../migrations/0002_scheduling.sql")),
    ("skipped_ticks", include_str!("../migrations/0003_skipped_ticks.sql")),
    ("master_key", include_str!("../migrations/0004_master_key.sql")),
    ("lives", include_str!("../migrations/0005_lives.sql")),
    ("changes", include_str!("../migrations/0006_changes.sql")),
    ("aborts", include_str!("../migrations/0007_aborts.sql")),
    ("audit", include_str!("../migrations/0008_audit.sql")),
];

/// Migrations of SQLite's schema that this program knows.
pub(super) static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| migrator(&SCRIPTS));

/// Returns the number of the newest migration that this program knows.
pub(super) fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Numbers the scripts from 1.
fn migrator(scripts: &[Script]) -> Migrator {
    let migration = |(number, (title, sql)): (i64, &Script)| {
        Migration::new(number, (*title).into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(scripts).map(migration).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_carried_under_its_number_and_title() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let name = |it: &Migration| directory.join(format!("{:04}_{}.sql", it.version, it.description));
        assert_eq!(MIGRATIONS.iter().map(name).collect::<Vec<_>>(), files);
        for (migration, file) in MIGRATIONS.iter().zip(&files) {
            assert_eq!(migration.sql.as_str(), std::fs::read_to_string(file).unwrap(), "{}", file.display());
        }
    }
}
