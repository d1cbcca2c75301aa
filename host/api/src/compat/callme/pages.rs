//! `GET /status/…`: one entry, those of a name, or all, page by page in the order of their names and minutes.

use serde_json::{Value, json};

use super::super::Call;
use super::super::refusal::Refusal;
use super::entry::{EntryKey, View, Which};
use super::is_entry;
use super::minute::minute_of;
use carillon_core::job::Job;
use carillon_store::NamesQuery;

/// The most entries of a page, and the most that their payloads weigh, in bytes.
const PAGE: usize = 500;
const PAGE_LEN: usize = 1 << 20;

/// How many jobs are read in one go.
const READ: u32 = 500;

/// Which entries a list is of.
struct Listing {
    /// What their jobs' names begin with.
    prefix: String,
    /// Of exactly this name, or of any.
    name: Option<String>,
    /// No minute before this.
    earliest: i64,
}

impl Listing {
    fn takes(&self, key: &EntryKey) -> bool {
        self.name.as_ref().is_none_or(|name| *name == key.name) && key.minute >= self.earliest
    }
}

impl Call {
    /// The entries that a path means.
    pub(super) async fn status(&self, path: &str) -> Result<Value, Refusal> {
        let name = match self.which(path).await? {
            Which::One(key) => {
                let (Some(job), Some(group)) = (self.entry(&key).await?, self.known_group()) else {
                    return Err(key.unknown());
                };
                return Ok(json!({"tasks": [self.shown(&group, &job, key).await?]}));
            }
            Which::All(name) => Some(name).filter(|name| !name.is_empty()),
        };
        let now = self.api.services.clock.now();
        let earliest = match (self.param("future_only"), &name) {
            (None, _) => i64::MIN,
            // Of one name those that are not over, of all those after this minute.
            (Some(_), Some(_)) => now.0.div_euclid(1_000),
            (Some(_), None) => minute_of(now) + 1,
        };
        let prefix = name.as_ref().map(|name| format!("{name}@")).unwrap_or_default();
        let start_from = self.param("start_from").map(|key| key.into_owned()).unwrap_or_default();
        if !start_from.is_empty() && EntryKey::parse(&start_from).is_none() {
            return Err(Refusal::bad("`start_from` must be `<name>@<trigger_at>`"));
        }
        self.page(&Listing { prefix, name, earliest }, start_from).await
    }

    async fn page(&self, listing: &Listing, mut after: String) -> Result<Value, Refusal> {
        let Some(group) = self.known_group() else { return Ok(json!({"tasks": []})) };
        let (mut tasks, mut len, mut last): (Vec<View>, usize, Option<EntryKey>) = (Vec::new(), 0, None);
        loop {
            let found = self.read(listing, &after).await?;
            let Some((_, newest)) = found.last() else { return Ok(json!({"tasks": tasks})) };
            after = newest.clone();
            for (entry, _) in found {
                let Some((key, job)) = entry else { continue };
                if tasks.len() == PAGE || len > PAGE_LEN {
                    let key = last.unwrap_or(key);
                    let next = json!({"task_name": key.name, "trigger_at": key.minute.to_string(), "start_from": key.to_string()});
                    return Ok(json!({"tasks": tasks, "next": next}));
                }
                len += usize::try_from(job.body_len).unwrap_or(usize::MAX);
                tasks.push(self.shown(&group, &job, key.clone()).await?);
                last = Some(key);
            }
        }
    }

    /// All entries of a name, in the order of their minutes.
    pub(super) async fn entries_of(&self, name: &str) -> Result<Vec<Job>, Refusal> {
        let listing = Listing { prefix: format!("{name}@"), name: Some(name.to_owned()), earliest: i64::MIN };
        let (mut entries, mut after) = (Vec::new(), String::new());
        loop {
            let found = self.read(&listing, &after).await?;
            let Some((_, newest)) = found.last() else { return Ok(entries) };
            after = newest.clone();
            entries.extend(found.into_iter().filter_map(|(entry, _)| Some(entry?.1)));
        }
    }

    /// The next jobs by name, with their names; those that a list takes, as entries.
    async fn read(&self, listing: &Listing, after: &str) -> Result<Vec<(Option<(EntryKey, Job)>, String)>, Refusal> {
        let Some(group) = self.known_group() else { return Ok(Vec::new()) };
        let query = NamesQuery {
            tenant: self.access.tenant.id,
            group: group.id,
            prefix: listing.prefix.clone(),
            after: after.to_owned(),
            limit: READ,
        };
        let jobs = self.api.services.store.newest_of_names(query).await?;
        let entry = |job: Job| {
            let name = job.name.clone().unwrap_or_default();
            let key = EntryKey::parse(&name).filter(|key| listing.takes(key) && is_entry(&job));
            (key.map(|key| (key, job)), name)
        };
        Ok(jobs.into_iter().map(entry).collect())
    }
}
