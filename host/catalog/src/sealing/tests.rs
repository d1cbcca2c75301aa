//! The conformance suite of stores on one that encrypts, and what only this one promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{DATA_KEY, Encryption, SealedStore};
use crate::secrets::Vault;
use carillon_core::audit::AuditId;
use carillon_core::clock::SystemClock;
use carillon_core::job::{GroupId, JobId, NewJob, Settlement, Spec, State, Target, TenantId};
use carillon_store::conformance::{Backend, Case, NOW, World, an_attempt};
use carillon_store::{
    Audit, DeleteEntity, Edit, InsertResult, JobChange, Jobs as _, Kind, Precondition, SettleOutcome, Store,
    StoreError, conformance,
};
use carillon_store_sqlite::{SqliteOptions, SqliteStore};

const ALL: &[Case] = &conformance!(as list);

/// Cases that damage rows, count them, or set marks, which the tests of each database do.
const OF_DATABASES: [&str; 13] = [
    "lease::unreadable_jobs_take_no_place_of_a_claim",
    "audit::a_changed_row_is_found",
    "change::an_edit_that_keeps_a_payload_keeps_its_mark",
    "lease::of_a_job_that_cannot_be_read_ends_it_and_others_flow_on",
    "lease::of_an_unreadable_job_is_revoked_at_the_present_time",
    "change::a_job_that_cannot_be_read_is_cancelled_and_purged",
    "list::what_cannot_be_read_is_left_out_and_shortens_no_page",
    "left::a_year_after_everything_is_deleted_nothing_is_left",
    "left::each_schedule_takes_its_ticks_along",
    "left::deleted_tenant_leaves_nothing_and_its_namesake_has_nothing",
    "left::deletion_of_a_tenant_goes_on_in_slices_after_reopening",
    "list::job_bytes_are_those_of_payloads_documents_and_attempts",
    "catalog::a_change_is_read_without_the_rest",
];

struct Sealed {
    directory: TempDir,
    encryption: Encryption,
    open: Mutex<Option<Arc<SqliteStore>>>,
}

impl Sealed {
    fn new(encryption: Encryption) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), encryption, open: Mutex::default() }
    }

    /// Returns the files of the database as one text.
    fn files(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.directory.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

fn sealed(inner: Arc<dyn Store>, encryption: Encryption) -> Arc<dyn Store> {
    let vault = Vault::from_hex(&"ab".repeat(32)).unwrap();
    Arc::new(SealedStore::new(inner, &vault, encryption, Arc::new(SystemClock)))
}

#[async_trait]
impl Backend for Sealed {
    async fn open(&self) -> Arc<dyn Store> {
        let mut open = self.open.lock().await;
        if let Some(before) = open.take() {
            before.close().await;
        }
        let options = SqliteOptions::new(self.directory.path().join("test.db"));
        let store = Arc::new(SqliteStore::open(options).await.unwrap());
        *open = Some(Arc::clone(&store));
        sealed(store, self.encryption)
    }

    async fn damage(&self, _: JobId) {
        panic!("the tests of each database damage rows");
    }

    async fn damage_attempts(&self, _: JobId) {
        panic!("the tests of each database damage rows");
    }

    async fn forge_audit(&self, _: AuditId) {
        panic!("the tests of each database forge entries");
    }

    async fn rows(&self) -> BTreeMap<String, u64> {
        panic!("the tests of each database count rows");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_encrypts_keeps_every_promise_of_a_store() {
    for case in ALL.iter().filter(|case| !OF_DATABASES.contains(&case.name)) {
        let world = World::new(Box::new(Sealed::new(Encryption::Payloads))).await;
        // The output of a failed test ends with the name of its case.
        std::io::Write::write_all(&mut std::io::stderr(), format!("{}\n", case.name).as_bytes()).unwrap();
        (case.run)(&world).await;
    }
}

fn job(world: &World) -> NewJob {
    let target = Target {
        method: "POST".to_owned(),
        url: "https://user:marker-of-url@h.example/p?key=marker-of-query".to_owned(),
        headers: vec![("Authorization".to_owned(), "marker-of-header".to_owned())],
    };
    let mut job = NewJob::plain(JobId::new(&SystemClock), world.tenant, world.group, NOW);
    job.spec = Spec {
        target: Some(target),
        policy: Some(serde_json::json!({"encode": "marker-of-policy", "sealed_body": true})),
        ..Spec::default()
    };
    job.body = Bytes::from_static(b"marker-of-body");
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_from_before_and_after_a_change_of_the_setting_are_read_alike() {
    let backend = Arc::new(Sealed::new(Encryption::Off));
    let world = World::new(Box::new(Arc::clone(&backend))).await;
    let inner = || async { Arc::clone(backend.open.lock().await.as_ref().unwrap()) as Arc<dyn Store> };
    let (clear, on) = (world.store.clone(), sealed(inner().await, Encryption::Payloads));
    let jobs = [job(&world), job(&world), job(&world), job(&world)];
    for (job, store) in jobs.iter().zip([&clear, &on, &clear, &on]) {
        store.insert(vec![job.clone()].into()).await.unwrap();
    }
    // An edit without a payload, on either side: the payload stays as it is stored.
    for (job, store) in [(&jobs[2], &on), (&jobs[3], &clear)] {
        let spec = Spec { timeout_ms: Some(9), ..job.spec.clone() };
        let edit = Edit { revision: 0, name: None, run_at: NOW, priority: job.priority, spec, body: None };
        store.change(world.tenant, vec![job.id], JobChange::Edit(Box::new(edit)), NOW).await.unwrap();
    }
    // A third node learns of the key when it needs it.
    let fresh = sealed(inner().await, Encryption::Off);
    for store in [&fresh, &clear, &on] {
        for (index, job) in jobs.iter().enumerate() {
            let shown = store.job(world.tenant, job.id).await.unwrap().unwrap();
            let expected = if index < 2 { None } else { Some(9) };
            assert_eq!(shown.spec, Spec { timeout_ms: expected, ..job.spec.clone() }, "{index}");
            assert_eq!(shown.body_len, job.body.len() as u64, "{index}");
            assert_eq!(store.body(world.tenant, job.id).await.unwrap().unwrap(), job.body, "{index}");
        }
    }
    let leased = conformance::claim(&*fresh, world.group, NOW, 9).await;
    assert_eq!(leased.len(), 4);
    for leased in &leased {
        assert_eq!(leased.body, "marker-of-body");
        assert!(leased.job.spec.sealed.is_none() && !leased.job.spec.sealed_body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_encrypted_job_is_in_the_files() {
    let backend = Arc::new(Sealed::new(Encryption::Payloads));
    let world = World::new(Box::new(Arc::clone(&backend))).await;
    let schedule = serde_json::json!({"spec": {"payload": "marker-of-schedule"}});
    let mut put = conformance::an_entity(world.tenant.0, Kind::Schedule, "s", Precondition::Nothing);
    put.doc = schedule.clone();
    assert_eq!(world.store.put(put).await.unwrap().done.doc, schedule);
    world.store.insert(vec![job(&world)].into()).await.unwrap();
    let leased = world.claim(NOW, 1).await.remove(0);
    let mut attempt = an_attempt(&leased, Some(200));
    attempt.response_body = Bytes::from_static(b"marker-of-response");
    attempt.detail.redirects = vec!["http://marker-of-redirect/".to_owned()];
    let settlement = Settlement::succeeded(&leased, NOW, attempt.clone());
    world.store.settle(vec![settlement]).await.unwrap();
    let files = String::from_utf8_lossy(&backend.files()).into_owned();
    let found: Vec<&str> =
        files.match_indices("marker-of").map(|(at, _)| &files[at..(at + 24).min(files.len())]).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(files.contains("h.example/p"), "the rest of the URL stays readable");
    assert_eq!(world.store.attempts(world.tenant, leased.job.id, 0, 9).await.unwrap(), [attempt]);
    let loaded = world.store.load().await.unwrap().1;
    assert!(loaded.iter().any(|entity| entity.doc == schedule) && loaded.iter().all(|it| it.kind != Kind::DataKey));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_a_tenant_whose_key_is_deleted_cannot_be_read() {
    let backend = Arc::new(Sealed::new(Encryption::Payloads));
    let world = World::new(Box::new(Arc::clone(&backend))).await;
    let job = job(&world);
    world.store.insert(vec![job.clone()].into()).await.unwrap();
    assert!(delete(&world, world.tenant.0, Kind::DataKey, DATA_KEY).await);
    assert!(!delete(&world, world.tenant.0, Kind::DataKey, DATA_KEY).await);
    let unreadable = |error| matches!(error, StoreError::Unreadable(id) if id == job.id);
    assert!(unreadable(world.store.job(world.tenant, job.id).await.unwrap_err()));
    assert!(unreadable(world.store.body(world.tenant, job.id).await.unwrap_err()));
    assert!(world.claim(NOW, 1).await.is_empty());
    // The claim has ended it; a new key is made for what comes next, and does not open what was before.
    assert!(world.claim(NOW, 1).await.is_empty());
    let next = super::tests::job(&world);
    let placed = world.store.insert(vec![next.clone()].into()).await.unwrap();
    assert!(matches!(placed, InsertResult::Placed(_)));
    assert_eq!(world.store.body(world.tenant, next.id).await.unwrap().unwrap(), next.body);
    assert!(unreadable(world.store.job(world.tenant, job.id).await.unwrap_err()));
    assert!(world.store.job(TenantId(world.tenant.0 + 1), next.id).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settlement_of_a_deleted_tenant_does_not_keep_others_from_being_written() {
    let backend = Arc::new(Sealed::new(Encryption::Payloads));
    let world = World::new(Box::new(Arc::clone(&backend))).await;
    let gone = put(&world, 0, Kind::Tenant, "gone").await;
    let group = put(&world, gone, Kind::Group, "g").await;
    let theirs = NewJob { tenant: TenantId(gone), group: GroupId(group), ..job(&world) };
    world.store.insert(vec![job(&world), theirs].into()).await.unwrap();
    let mut leased = world.claim(NOW, 1).await;
    leased.extend(conformance::claim(&*world.store, GroupId(group), NOW, 1).await);
    assert_eq!(leased.len(), 2);
    assert!(delete(&world, 0, Kind::Tenant, "gone").await);
    assert!(delete(&world, gone, Kind::DataKey, DATA_KEY).await);
    let settlement = |leased| Settlement::succeeded(leased, NOW, an_attempt(leased, Some(200)));
    let settled = world.store.settle(leased.iter().map(settlement).collect()).await.unwrap();
    assert_eq!(settled[0], SettleOutcome::Applied(State::Succeeded));
    let attempts = world.store.attempts(world.tenant, leased[0].job.id, 0, 9).await.unwrap();
    assert_eq!(attempts, [an_attempt(&leased[0], Some(200))]);
}

async fn put(world: &World, tenant: i64, kind: Kind, name: &str) -> i64 {
    let put = conformance::an_entity(tenant, kind, name, Precondition::Nothing);
    world.store.put(put).await.unwrap().done.id
}

async fn delete(world: &World, tenant: i64, kind: Kind, name: &str) -> bool {
    let (name, now, generation, audit) = (name.to_owned(), NOW, None, Audit::Upkeep);
    world.store.delete(DeleteEntity { tenant, kind, name, now, generation, audit }).await.unwrap().done
}
