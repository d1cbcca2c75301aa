//! The settings of `backoff`, and what makes them contradict one another.

use carillon_policy_sdk::Millis;
use serde::Deserialize;

/// How the delays follow one another.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `base` each time.
    Fixed,
    /// `offset + base * n`.
    Linear,
    /// `offset + base * factor^(n-1)`.
    Exponential,
    /// The n-th of `table`; after its end the last.
    Table,
}

/// Which way jitter moves a delay.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum JitterMode {
    /// Evenly within `1 - jitter .. 1 + jitter` times the delay.
    Symmetric,
    /// Evenly within `1 - jitter .. 1` times the delay. With a jitter of 1 this is known as full jitter.
    Shorten,
}

/// See the README for the meaning and the defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How the delays follow one another.
    pub kind: Kind,
    /// The unit of the delays.
    pub base: Option<Millis>,
    /// What each delay is multiplied by to get the next.
    pub factor: Option<f64>,
    /// Added to each delay.
    pub offset: Option<Millis>,
    /// The delays themselves.
    pub table: Option<Vec<Millis>>,
    /// No delay is longer, save what the receiver asked for.
    pub max: Option<Millis>,
    /// A fraction of the delay, 0 to 1.
    pub jitter: f64,
    /// Which way jitter moves a delay.
    pub jitter_mode: JitterMode,
    /// Attempts in all.
    pub max_attempts: u32,
    /// From the first attempt to the start of the last.
    pub max_elapsed: Option<Millis>,
    /// Whether a `Retry-After` counts.
    pub honour_retry_after: bool,
    /// A longer `Retry-After` is taken as this.
    pub max_retry_after: Millis,
}

const DEFAULT_BASE: Millis = Millis(2_000);
const DEFAULT_FACTOR: f64 = 2.0;
const DEFAULT_MAX: Millis = Millis(15 * 60 * 1_000);

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Exponential,
            base: None,
            factor: None,
            offset: None,
            table: None,
            max: None,
            jitter: 0.0,
            jitter_mode: JitterMode::Symmetric,
            max_attempts: 5,
            max_elapsed: None,
            honour_retry_after: true,
            max_retry_after: Millis(60 * 60 * 1_000),
        }
    }
}

impl Config {
    pub(crate) fn base_ms(&self) -> u64 {
        self.base.unwrap_or(DEFAULT_BASE).0
    }

    pub(crate) fn offset_ms(&self) -> u64 {
        self.offset.map_or(0, |offset| offset.0)
    }

    pub(crate) fn factor(&self) -> f64 {
        self.factor.unwrap_or(DEFAULT_FACTOR)
    }

    /// The cap. Delays that were written out one by one have none of their own.
    pub(crate) fn max_ms(&self) -> u64 {
        match (self.max, self.kind) {
            (Some(max), _) => max.0,
            (None, Kind::Linear | Kind::Exponential) => DEFAULT_MAX.0,
            (None, Kind::Fixed | Kind::Table) => u64::MAX,
        }
    }

    /// One sentence for the first rule that the settings break.
    pub(crate) fn check(&self) -> Result<(), String> {
        let misplaced = |field: &str, kinds: &str| {
            Err(format!("`{field}` belongs to `kind` {kinds}; leave it out, or set `kind`."))
        };
        match self.kind {
            Kind::Table if self.table.as_ref().is_none_or(Vec::is_empty) => {
                return Err("`kind` \"table\" needs `table`, a list of at least one delay.".to_owned());
            }
            Kind::Table if self.base.is_some() => return misplaced("base", "\"fixed\", \"linear\" or \"exponential\""),
            Kind::Fixed | Kind::Linear | Kind::Exponential if self.table.is_some() => {
                return misplaced("table", "\"table\"");
            }
            _ => {}
        }
        if self.factor.is_some() && self.kind != Kind::Exponential {
            return misplaced("factor", "\"exponential\"");
        }
        if self.offset.is_some() && !matches!(self.kind, Kind::Linear | Kind::Exponential) {
            return misplaced("offset", "\"linear\" or \"exponential\"");
        }
        if !(self.factor().is_finite() && self.factor() >= 1.0) {
            return Err("`factor` must be at least 1.".to_owned());
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err("`jitter` must be a fraction from 0 to 1.".to_owned());
        }
        if self.max_attempts == 0 {
            return Err("`max_attempts` counts the first attempt, so it must be at least 1.".to_owned());
        }
        Ok(())
    }
}
