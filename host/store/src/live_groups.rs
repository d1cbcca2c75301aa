//! Groups that accept jobs, as one transaction has found them.

use std::collections::HashSet;

use super::decode::{Columns, Failure};
use carillon_core::job::{GroupId, NewJob, TenantId};

/// Groups that accept jobs, each with its tenant.
#[derive(Debug, Default)]
pub struct LiveGroups(HashSet<(GroupId, TenantId)>);

impl LiveGroups {
    /// Returns the groups of these jobs, each once: those to look for.
    pub fn wanted<'r, R: AsRef<NewJob> + 'r>(rows: impl Iterator<Item = &'r R>) -> HashSet<i64> {
        rows.map(|row| row.as_ref().group.0).collect()
    }

    /// Reads the rows of the groups that were found.
    pub fn read<E: Failure, R: Columns<E>>(rows: &[R]) -> Result<Self, E> {
        rows.iter()
            .map(|row| Ok((GroupId(row.i64("id")?), TenantId(row.i64("tenant")?))))
            .collect::<Result<_, E>>()
            .map(Self)
    }

    /// Returns whether all of these jobs are for groups that accept them.
    pub fn accept<R: AsRef<NewJob>>(&self, rows: &[R]) -> bool {
        rows.iter().all(|row| self.has(row.as_ref()))
    }

    /// Returns the follow-up jobs whose groups accept them.
    ///
    /// A missing group must not make the parent job's settlement fail, so the others are left out.
    pub fn follow_ups<'r, R: AsRef<NewJob>>(&self, jobs: Vec<&'r R>) -> Vec<&'r R> {
        let (stored, left): (Vec<&R>, Vec<&R>) = jobs.into_iter().partition(|row| self.has((*row).as_ref()));
        if !left.is_empty() {
            tracing::error!(jobs = left.len(), "dropped follow-up jobs whose group was deleted");
        }
        stored
    }

    fn has(&self, job: &NewJob) -> bool {
        self.0.contains(&(job.group, job.tenant))
    }
}
