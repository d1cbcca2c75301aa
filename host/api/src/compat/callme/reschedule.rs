//! `POST /reschedule/…`: entries move to another minute. The old one no longer runs, and the new one knows nothing of its answers.
//!
//! The moves are one transaction: each new job is stored in place of its old one, unless that runs. Entries that are moved to one minute are
//! spread over that and the minutes after it, and go around entries that are there already, so that none takes another's place.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

use super::super::Call;
use super::super::refusal::Refusal;
use super::entry::{EntryKey, Which};
use super::minute::{MINUTE, minute_of, time};
use crate::error::Problem;
use crate::input::parse;
use carillon_core::clock::UnixMs;
use carillon_core::job::{Admission, Job, JobId, NewJob, State, new_seed};
use carillon_store::InsertOutcome;

#[derive(Deserialize)]
struct MoveInput {
    trigger_at: Option<String>,
}

impl Call {
    /// Moves the entries that a path means: those that failed, or all. Answers with what they have become.
    pub(super) async fn reschedule(&self, path: &str) -> Result<Value, Refusal> {
        let now = self.api.services.clock.now();
        let minute = match self.asked_time()? {
            Some(text) => time(&text, now)?,
            None => minute_of(now) + MINUTE,
        };
        if UnixMs(minute.saturating_mul(1_000)) > now.plus(self.api.intake.limits.horizon) {
            return Err(Refusal::bad("`trigger_at` is too far ahead"));
        }
        let all = self.param("all").is_some();
        let (name, only) = match self.which(path).await? {
            Which::One(key) => (key.name.clone(), Some(key)),
            Which::All(name) => (name, None),
        };
        let entries = self.entries_of(&name).await?;
        let is_meant = |job: &Job| only.as_ref().is_none_or(|key| job.name == Some(key.to_string()));
        if let Some(key) = only.as_ref().filter(|_| !entries.iter().any(is_meant)) {
            return Err(key.unknown());
        }
        let moves = |job: &Job| is_meant(job) && (job.state == State::Dead || (all && job.state != State::Running));
        let (moving, staying) = entries.into_iter().partition(moves);
        self.spread(&name, moving, staying, minute).await
    }

    /// The new time: of the JSON body, else of a form, else of the query. Each may say nothing, or an empty text, which says as much.
    fn asked_time(&self) -> Result<Option<String>, Refusal> {
        let body = self.body.trim_ascii();
        let in_body = if body.starts_with(b"{") {
            parse::<MoveInput>(&self.body)?.trigger_at
        } else if body.is_empty() || body == b"null" {
            None
        } else if body.contains(&b'=') {
            let mut form = url::form_urlencoded::parse(body);
            form.find(|(key, _)| key == "trigger_at").map(|(_, at)| at.into_owned())
        } else {
            return Err(Refusal::bad("the body is neither a JSON object nor a form"));
        };
        let in_query = || self.param("trigger_at").map(|at| at.into_owned()).filter(|at| !at.is_empty());
        Ok(in_body.filter(|at| !at.is_empty()).or_else(in_query))
    }

    /// Moves entries of a name, the earliest first, to a minute and those after it, around those that stay.
    async fn spread(&self, name: &str, moving: Vec<Job>, staying: Vec<Job>, mut minute: i64) -> Result<Value, Refusal> {
        let Some(group) = self.known_group() else { return Ok(Value::Array(Vec::new())) };
        let taken: HashSet<Option<String>> = staying.into_iter().map(|job| job.name).collect();
        let mut moves: Vec<(EntryKey, NewJob)> = Vec::with_capacity(moving.len());
        for old in moving {
            let mut key = EntryKey { name: name.to_owned(), minute };
            while taken.contains(&Some(key.to_string())) {
                key.minute += MINUTE;
            }
            if let Some(new) = self.in_place_of(&old, &key).await? {
                minute = key.minute + MINUTE;
                moves.push((key, new));
            }
        }
        // One may move to where another one still is, so all of them move in one transaction.
        let placed = self.insert(moves.iter().map(|(_, new)| new.clone()).collect()).await?;
        let mut moved = Vec::with_capacity(moves.len());
        for ((key, new), placed) in moves.into_iter().zip(placed) {
            if matches!(placed, InsertOutcome::Stored { .. }) {
                moved.push(self.shown(&group, &new.shown(), key).await?);
            }
        }
        serde_json::to_value(moved).map_err(|_| Problem::internal().into())
    }

    /// The job of `key` that takes the place of `old`, unless that runs or has gone meanwhile.
    async fn in_place_of(&self, old: &Job, key: &EntryKey) -> Result<Option<NewJob>, Refusal> {
        let Some(body) = self.api.services.store.body(old.tenant, old.id).await? else { return Ok(None) };
        let (clock, now) = (&*self.api.services.clock, self.api.services.clock.now());
        Ok(Some(NewJob {
            id: JobId::new(clock),
            tenant: old.tenant,
            group: old.group,
            name: Some(key.to_string()),
            run_at: UnixMs(key.minute * 1_000).max(now),
            created_at: now,
            deadline: old.deadline.map(|deadline| now.plus(deadline.since(old.created_at))),
            max_delay: old.max_delay,
            priority: old.priority,
            order_key: old.order_key.clone(),
            admission: Admission::Replace { moved: Some(old.id) },
            seed: new_seed(clock),
            spec: old.spec.clone(),
            body,
        }))
    }
}
