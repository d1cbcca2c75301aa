//! Problems of a configuration, for people.

use std::fmt;

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Source of the value, if known: a file, a variable or a flag.
    pub origin: Option<String>,
    /// Key, such as `server.listen`; empty if the problem is the source as a whole.
    pub key: String,
    /// Message for people.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Error: the configuration cannot be used.
///
/// Lists every problem that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Problems; at least one.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(f, "the configuration is invalid: {problem}"),
            problems => {
                write!(f, "the configuration is invalid:")?;
                problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {}
