//! The tables that move, with their columns.

use super::{Column, Form, Table};

const fn column(name: &'static str, form: Form) -> Column {
    Column { name, form }
}

const fn number(name: &'static str) -> Column {
    column(name, Form::Number)
}

const fn text(name: &'static str) -> Column {
    column(name, Form::Text)
}

const fn id(name: &'static str) -> Column {
    column(name, Form::Id)
}

/// All tables to move.
///
/// Configured entities come first: they are few, and jobs mean nothing without them.
pub static TABLES: [Table; 12] = [
    Table {
        name: "entity",
        source: ("entity", "TRUE"),
        keys: 1,
        columns: &[
            number("id"),
            number("tenant"),
            text("kind"),
            text("name"),
            number("version"),
            text("doc"),
            number("created_at"),
            number("updated_at"),
            number("deleted_at"),
        ],
    },
    Table { name: "master_key", source: ("master_key", "TRUE"), keys: 1, columns: &[number("id"), text("sealed")] },
    Table {
        name: "component",
        source: ("component", "TRUE"),
        keys: 1,
        columns: &[text("digest"), column("bytes", Form::Bytes)],
    },
    Table {
        name: "audit",
        source: ("audit", "TRUE"),
        keys: 1,
        columns: &[
            id("id"),
            number("at"),
            text("node"),
            number("number"),
            number("tenant"),
            text("actor"),
            text("verb"),
            text("kind"),
            text("name"),
            text("previous"),
            text("digest"),
            text("doc"),
        ],
    },
    Table {
        name: "audit_chain",
        source: ("audit_chain", "TRUE"),
        keys: 1,
        columns: &[text("node"), number("number"), text("digest"), number("at")],
    },
    // The `+` makes SQLite read in the order of the key: with an index by time it would have to sort the rows for each page.
    Table {
        name: "job_done",
        source: ("job", "+finished_at IS NOT NULL"),
        keys: 1,
        columns: &[
            id("id"),
            number("tenant"),
            number("grp"),
            number("lane"),
            number("run_at"),
            text("state"),
            number("finished_at"),
            column("cancel_requested", Form::Flag),
            number("token"),
            number("attempt_count"),
            number("attempt_base"),
            number("revision"),
            number("seed"),
            number("created_at"),
            number("deadline"),
            number("ttl"),
            number("max_delay"),
            number("schedule"),
            number("last_status"),
            text("name"),
            text("order_key"),
            text("last_error"),
        ],
    },
    Table {
        name: "job",
        source: ("job", "+finished_at IS NULL"),
        keys: 1,
        columns: &[
            id("id"),
            number("tenant"),
            number("grp"),
            number("lane"),
            number("run_at"),
            text("state"),
            column("blocked", Form::Flag),
            column("cancel_requested", Form::Flag),
            column("abort_requested", Form::Flag),
            number("lease_until"),
            number("token"),
            number("lost_leases"),
            number("attempt_count"),
            number("attempt_base"),
            number("revision"),
            number("seed"),
            number("created_at"),
            number("deadline"),
            number("ttl"),
            number("max_delay"),
            number("schedule"),
            number("last_status"),
            text("name"),
            text("order_key"),
            text("last_error"),
        ],
    },
    Table {
        name: "job_spec",
        source: ("job_spec", "TRUE"),
        keys: 1,
        columns: &[id("job"), text("spec"), column("labels", Form::Labels), column("body", Form::Bytes)],
    },
    Table {
        name: "attempt",
        source: ("attempt", "TRUE"),
        keys: 2,
        columns: &[
            id("job"),
            number("number"),
            number("started_at"),
            number("finished_at"),
            text("outcome"),
            number("status"),
            text("detail"),
            column("response_body", Form::Bytes),
        ],
    },
    Table {
        name: "tick",
        source: ("tick", "TRUE"),
        keys: 2,
        columns: &[
            number("schedule"),
            number("at"),
            id("job"),
            text("reason"),
            number("skipped_from"),
            number("skipped_count"),
        ],
    },
    Table {
        name: "ticked",
        source: ("ticked", "TRUE"),
        keys: 1,
        columns: &[number("schedule"), number("last"), number("runs"), number("extra"), number("skipped")],
    },
    Table {
        name: "recent",
        source: ("recent", "TRUE"),
        keys: 3,
        columns: &[number("tenant"), text("kind"), text("key"), number("expires_at"), id("job"), text("doc")],
    },
];
