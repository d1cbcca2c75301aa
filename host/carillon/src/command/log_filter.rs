//! Filter of the log: the environment variable `CARILLON_LOG`.
//!
//! The filter's own syntax takes any word for the name of a part of the program, so that a misspelt level turns all logging off. Here a
//! single word is a level, and parts of the program that the text does not cover keep their default.

use anyhow::bail;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Name of the environment variable.
pub(super) const VARIABLE: &str = "CARILLON_LOG";

/// Filter for parts of the program that the variable does not cover.
const DEFAULT: &str = "info,sqlx::postgres::notice=warn";

/// Parses a filter: levels, and `TARGET=LEVEL` for parts of the program, separated by commas.
///
/// # Errors
/// Returns an error if a word is neither.
pub(super) fn parse(text: &str) -> anyhow::Result<EnvFilter> {
    let directives: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let mut has_level = false;
    for directive in &directives {
        if directive.contains(['=', '[']) {
            continue;
        }
        if directive.parse::<LevelFilter>().is_err() {
            bail!(
                "{VARIABLE}: `{directive}` is neither a level (off, error, warn, info, debug, trace) nor `TARGET=LEVEL`, \
                 such as `carillon_engine::dispatch=debug`"
            );
        }
        has_level = true;
    }
    let directives = directives.join(",");
    let whole = if has_level { directives } else { format!("{DEFAULT},{directives}") };
    EnvFilter::builder().parse(whole.trim_end_matches(',')).map_err(|error| anyhow::anyhow!("{VARIABLE}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_levels_are_refused() {
        for bad in ["bogus", "inof", "info,debgu", "carillon", "carillon_engine=loud", "information"] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.starts_with("CARILLON_LOG: "), "{bad}: {error}");
        }
    }

    #[test]
    fn parts_of_the_program_leave_the_rest_as_it_is() {
        for (text, level) in [
            ("", LevelFilter::INFO),
            (" ", LevelFilter::INFO),
            ("error", LevelFilter::ERROR),
            ("WARN", LevelFilter::WARN),
            ("off", LevelFilter::OFF),
            ("carillon_engine::dispatch=debug", LevelFilter::DEBUG),
            ("bogus=error", LevelFilter::INFO),
            ("warn, carillon_engine::delivery=trace", LevelFilter::TRACE),
        ] {
            assert_eq!(parse(text).unwrap().max_level_hint(), Some(level), "{text}");
        }
    }
}
