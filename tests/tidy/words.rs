//! Names that were given up for the field's own (docs/glossary.md): nothing is called by them again.

use regex::Regex;

use super::sources;

/// Types and bounds by their former names, each with the present one.
const RETIRED: [(&str, &str); 34] = [
    ("Attempter", "AttemptExecutor"),
    ("BELIEF", "VIEW_TTL"),
    ("Bulks", "BulkRunner"),
    ("CLAIM_TIME", "CLAIM_LEAD"),
    ("Divided", "ShareKey"),
    ("Forecast", "Simulation"),
    ("GATHER", "COALESCE_DELAY"),
    ("Gates", "Limiter"),
    ("LARGEST_PAGE", "MAX_PAGE"),
    ("LAST_WORDS", "STREAM_CLOSE_TIMEOUT"),
    ("LONGEST_DEBOUNCE", "MAX_DEBOUNCE"),
    ("LONGEST_NAP", "MAX_SLEEP"),
    ("LastPush", "LastAccepted"),
    ("MOMENT", "LEAD_TIME"),
    ("MOST_ENGINES", "MAX_ENGINES"),
    ("MOST_REDIRECTS", "MAX_REDIRECTS"),
    ("MOST_TICKS", "MAX_TICKS"),
    ("Mould", "ScheduleTemplate"),
    ("Opening", "Capacity"),
    ("Outlook", "ClaimPlan"),
    ("Puller", "PullQueue"),
    ("PutOff", "Postponed"),
    ("Rejected", "CatalogError"),
    ("Rollouts", "RolloutMonitor"),
    ("SETTLING", "JOIN_DELAY"),
    ("SHORTEST_EVERY", "MIN_EVERY"),
    ("SHORTEST_TOKEN", "MIN_TOKEN"),
    ("Seat", "ReceiverSlot"),
    ("SharedClock", "DatabaseClock"),
    ("Suspect", "PolicyKey"),
    ("Ticking", "TickJob"),
    ("Told", "PendingFacts"),
    ("WORTH_IT", "MIN_ROWS_TO_TRUNCATE"),
    ("Whose", "Scope"),
];

#[test]
fn retired_names_stay_retired() {
    // Comments and texts may have the words, at the beginning of a sentence.
    let words = Regex::new(r#"//[^\n]*|"(?:[^"\\]|\\.)*"|\b[A-Za-z_]\w*\b"#).unwrap();
    for source in sources("host", &[".rs"]) {
        for found in words.find_iter(&source.text) {
            if let Some((old, new)) = RETIRED.iter().find(|(old, _)| *old == found.as_str()) {
                panic!("{}: `{old}` is `{new}` now", source.path);
            }
        }
    }
}
