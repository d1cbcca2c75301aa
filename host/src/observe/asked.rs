//! A job that was to be stored, and the facts that follow from what became of it.

use super::event::{Fact, Subject};
use crate::clock::UnixMs;
use crate::job::{Admission, NewJob};
use crate::store::Placed;

/// A job that was to be stored.
#[derive(Clone, Debug)]
pub struct Asked {
    about: Subject,
    at: UnixMs,
    is_debounced: bool,
}

impl From<&NewJob> for Asked {
    fn from(job: &NewJob) -> Self {
        let is_debounced = matches!(job.admission, Admission::Debounced(_));
        Self { about: job.into(), at: job.created_at, is_debounced }
    }
}

impl Asked {
    /// What happened, in the order in which Deferrable tells it: the debounce, then the push.
    pub(super) fn facts(self, placed: &Placed) -> Vec<Fact> {
        let Self { about, at, is_debounced } = self;
        match placed {
            Placed::Stored { run_at, forgotten, cancelled } => {
                let other = |job| Subject { job: Some(job), ..Subject::group(about.tenant, about.group) };
                let mut facts: Vec<_> = cancelled.iter().map(|job| Fact::cancel(other(*job), at)).collect();
                if *forgotten {
                    let reason = "what was remembered of the key cannot be read, and was taken for nothing";
                    facts.push(Fact::debounce_error(about.clone(), at, reason.to_owned()));
                }
                if is_debounced {
                    facts.push(Fact::debounce_miss(about.clone(), at, *run_at));
                }
                facts.push(Fact::push(about, at, *run_at));
                facts
            }
            Placed::Duplicate(job) => vec![Fact::dedupe_hit(&**job, at)],
            Placed::Debounced(job) => vec![Fact::debounce_hit(&**job, at)],
            // Whoever skips a tick knows why, and tells.
            Placed::Skipped => Vec::new(),
        }
    }
}
