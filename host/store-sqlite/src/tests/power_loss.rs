//! Power failures: whenever the power fails, nothing that was confirmed is lost, and nothing is half there.
//!
//! A random history of writes runs on a [disk that forgets](disk). At many of its writes, syncs and truncations the disk is looked at as it
//! would be after a power failure, and what was confirmed by then is compared with what a store on that disk knows.

mod disk;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sqlx::Connection as _;

use self::disk::{Disk, Image, Unsynced};
use super::{Sqlite, shell};
use crate::{SqliteOptions, SqliteStore};
use carillon_core::job::{JobId, NewJob, Settlement, State, TenantId};
use carillon_store::conformance::{NOW, World, an_attempt, an_entity};
use carillon_store::{Durability, Entities as _, JobChange, Jobs as _, Kind, Precondition};

/// Histories of a test.
const HISTORIES: u64 = 3;

/// Steps of a history, after those that open the database.
const STEPS: usize = 60;

/// Largest number of power failures of a history.
const POWER_FAILURES: usize = 80;

/// Largest number of changes of the disk from one power failure to the next.
const MAX_GAP: u64 = 40;

/// Name of the database.
const DATABASE: &str = "test.db";

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A write that the store has confirmed.
#[derive(Clone, Debug)]
enum Confirmed {
    Inserted(JobId, Bytes),
    Succeeded(JobId),
    Cancelled(JobId),
    Put(String, i64),
    /// A job that has succeeded is being removed.
    Removing(JobId),
}

impl Confirmed {
    fn job(&self) -> Option<JobId> {
        match self {
            Self::Inserted(id, _) | Self::Succeeded(id) | Self::Cancelled(id) | Self::Removing(id) => Some(*id),
            Self::Put(..) => None,
        }
    }

    fn succeeded(&self) -> Option<JobId> {
        if let Self::Succeeded(id) = self { Some(*id) } else { None }
    }

    fn removed(&self) -> Option<JobId> {
        if let Self::Removing(id) = self { Some(*id) } else { None }
    }
}

/// What the power failures left, each with the number of confirmed writes before it.
#[derive(Default)]
struct Observed {
    confirmed: Vec<Confirmed>,
    failures: Vec<Failure>,
}

struct Failure {
    image: Image,
    unsynced: Unsynced,
    confirmed: usize,
}

type Shared = Arc<Mutex<Observed>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Observed> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at the disk of a directory from now on, at random changes.
fn observe(directory: &Path, seed: u64) -> Shared {
    let shared = Shared::default();
    let (observer, mut random, mut next) = (Arc::clone(&shared), Random(seed), 1);
    Disk::install(directory, move |disk| {
        let mut observed = lock(&observer);
        if disk.changes() < next || observed.failures.len() >= POWER_FAILURES {
            return;
        }
        next = disk.changes() + 1 + random.below(MAX_GAP);
        let unsynced = match random.below(4) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            _ => Unsynced::Mixed,
        };
        let image = disk.after_power_loss(unsynced, || random.below(2) == 0);
        let confirmed = observed.confirmed.len();
        observed.failures.push(Failure { image, unsynced, confirmed });
    });
    shared
}

/// Writes a random history to a database, one call after the other, and returns what the power failures left.
async fn history(seed: u64, durability: Durability) -> Shared {
    let directory = tempfile::tempdir().unwrap();
    let (shared, mut random) = (observe(directory.path(), seed), Random(!seed));
    let path = directory.path().join(DATABASE);
    let backend = Sqlite { directory, durability, open: tokio::sync::Mutex::default() };
    let mut world = World::new(Box::new(backend)).await;
    let confirm = |confirmed| lock(&shared).confirmed.push(confirmed);
    for step in 0..STEPS {
        match random.below(10) {
            0..=3 => {
                let jobs: Vec<NewJob> = (0..=random.below(3)).map(|_| random_job(&world, &mut random)).collect();
                world.store.insert(jobs.clone().into()).await.unwrap();
                jobs.into_iter().for_each(|job| confirm(Confirmed::Inserted(job.id, job.body)));
            }
            4..=5 => {
                for leased in world.claim(NOW, 2).await {
                    let settlement = Settlement::succeeded(&leased, NOW, an_attempt(&leased, Some(200)));
                    world.store.settle(vec![settlement]).await.unwrap();
                    confirm(Confirmed::Succeeded(leased.job.id));
                }
            }
            6 => {
                let id = world.insert_due(1).await[0];
                world.change(id, JobChange::Cancel).await;
                confirm(Confirmed::Cancelled(id));
            }
            7 => {
                let name = format!("key-{}", random.below(3));
                let put = an_entity(world.tenant.0, Kind::Key, &name, Precondition::Anything);
                let version = world.store.put(put).await.unwrap().done.version;
                confirm(Confirmed::Put(name, version));
            }
            8 => {
                let ended: Vec<JobId> = lock(&shared).confirmed.iter().filter_map(Confirmed::succeeded).collect();
                ended.into_iter().for_each(|id| confirm(Confirmed::Removing(id)));
                world.prune(&[(State::Succeeded, NOW)], 100).await;
            }
            _ if step % 2 == 0 => world.store = world.reopened().await,
            _ => {
                let mut shell = shell(&path).await;
                sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(&mut shell).await.unwrap();
                shell.close().await.unwrap();
            }
        }
    }
    world.store.close().await;
    shared
}

/// Returns a job whose payload takes up to two pages.
fn random_job(world: &World, random: &mut Random) -> NewJob {
    let len = usize::try_from(random.below(8_000)).unwrap();
    let letter = b'a' + u8::try_from(random.below(26)).unwrap();
    NewJob { body: Bytes::from(vec![letter; len]), ..world.job(NOW) }
}

/// The store after a power failure.
struct Survivor {
    store: SqliteStore,
    tenant: TenantId,
}

impl Survivor {
    /// Opens the database of an image, which must be whole. Returns `None` if the database did not exist yet.
    async fn open(failure: &Failure, directory: &Path) -> Option<Self> {
        for (name, bytes) in &failure.image {
            std::fs::write(directory.join(name), bytes).unwrap();
        }
        let path = directory.join(DATABASE);
        if !path.exists() {
            return None;
        }
        let store = SqliteStore::open(SqliteOptions::new(&path)).await.unwrap();
        let mut shell = shell(&path).await;
        let found: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut shell).await.unwrap();
        assert_eq!(found, ["ok"]);
        assert!(sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut shell).await.unwrap().is_empty());
        shell.close().await.unwrap();
        let entities = store.load().await.unwrap().1;
        let tenant = entities.iter().find(|entity| entity.kind == Kind::Tenant).map_or(0, |tenant| tenant.id);
        Some(Self { store, tenant: TenantId(tenant) })
    }

    /// Returns whether the store knows of a confirmed write, or of one that came after it.
    async fn knows(&self, confirmed: &Confirmed) -> bool {
        let state = async |id| self.store.job(self.tenant, id).await.unwrap().map(|job| job.state);
        match confirmed {
            Confirmed::Inserted(id, body) => self.store.body(self.tenant, *id).await.unwrap().as_ref() == Some(body),
            Confirmed::Succeeded(id) => {
                let attempts = self.store.attempts(self.tenant, *id, 0, 9).await.unwrap();
                state(*id).await == Some(State::Succeeded) && attempts.len() == 1
            }
            Confirmed::Cancelled(id) => state(*id).await == Some(State::Cancelled),
            Confirmed::Put(name, version) => {
                let entities = self.store.load().await.unwrap().1;
                entities
                    .iter()
                    .any(|entity| entity.kind == Kind::Key && entity.name == *name && entity.version >= *version)
            }
            Confirmed::Removing(_) => true,
        }
    }
}

/// Returns for each confirmed write before a power failure whether the store knows of it. Of jobs that were being removed, nothing is said.
async fn survived(failure: &Failure, confirmed: &[Confirmed]) -> Vec<bool> {
    let directory = tempfile::tempdir().unwrap();
    let confirmed = &confirmed[..failure.confirmed];
    let Some(survivor) = Survivor::open(failure, directory.path()).await else {
        return vec![false; confirmed.len()];
    };
    let removed: BTreeSet<JobId> = confirmed.iter().filter_map(Confirmed::removed).collect();
    let mut survived = Vec::new();
    for write in confirmed.iter().filter(|write| write.job().is_none_or(|id| !removed.contains(&id))) {
        survived.push(survivor.knows(write).await);
    }
    survivor.store.close().await;
    survived
}

/// Histories use the one disk of the process in turn.
static DISK_IN_USE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_writes_survive_a_power_failure_at_any_point() {
    let _in_use = DISK_IN_USE.lock().await;
    for seed in 0..HISTORIES {
        let shared = history(seed, Durability::Full).await;
        let observed = std::mem::take(&mut *lock(&shared));
        assert!(observed.failures.len() >= POWER_FAILURES / 2, "seed {seed}: {}", observed.failures.len());
        for (number, failure) in observed.failures.iter().enumerate() {
            let survived = survived(failure, &observed.confirmed).await;
            let lost = survived.iter().filter(|survived| !**survived).count();
            assert_eq!(
                lost,
                0,
                "seed {seed}, failure {number}, unsynced {:?}: of {} writes",
                failure.unsynced,
                survived.len()
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn normal_durability_loses_only_the_last_writes_and_only_with_the_power() {
    let _in_use = DISK_IN_USE.lock().await;
    let mut lost = 0;
    for seed in 0..HISTORIES {
        let shared = history(seed, Durability::Normal).await;
        let observed = std::mem::take(&mut *lock(&shared));
        for (number, failure) in observed.failures.iter().enumerate() {
            let survived = survived(failure, &observed.confirmed).await;
            let kept = survived.iter().take_while(|survived| **survived).count();
            let later = survived[kept..].iter().filter(|survived| **survived).count();
            assert_eq!(later, 0, "seed {seed}, failure {number}: an earlier write is lost, and a later one is not");
            if failure.unsynced == Unsynced::Kept {
                assert_eq!(kept, survived.len(), "seed {seed}, failure {number}: the power stayed on");
            }
            lost += survived.len() - kept;
        }
    }
    assert!(lost > 0, "the disk forgets what was not synced");
}
