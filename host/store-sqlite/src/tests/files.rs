//! Tests of the files: durability, size, mode and owner.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

async fn pragma(db: &mut SqliteConnection, name: &str) -> String {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("PRAGMA {name}"))).fetch_one(db).await.unwrap();
    row.try_get::<i64, _>(0).map_or_else(|_| row.get::<String, _>(0), |number| number.to_string())
}

#[tokio::test]
async fn each_connection_has_the_settings_of_its_durability() {
    for (durability, synchronous) in [(Durability::Full, "2"), (Durability::Normal, "1")] {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteOptions { durability, ..SqliteOptions::new(directory.path().join("test.db")) };
        // A new file, and an existing one.
        for _ in 0..2 {
            let mut opened = open::open(&options).await.unwrap();
            let writer = [
                ("synchronous", synchronous),
                ("journal_mode", "wal"),
                ("foreign_keys", "1"),
                ("busy_timeout", "5000"),
                ("temp_store", "2"),
                ("cache_size", "-8192"),
                ("wal_autocheckpoint", "4000"),
                ("journal_size_limit", "67108864"),
                ("auto_vacuum", "2"),
            ];
            for (name, expected) in writer {
                assert_eq!(pragma(&mut opened.writer, name).await, expected, "{name} of the writer, {durability:?}");
            }
            let mut reader = opened.system.acquire().await.unwrap();
            let reading =
                [("journal_mode", "wal"), ("busy_timeout", "5000"), ("cache_size", "-2048"), ("temp_store", "2")];
            for (name, expected) in reading {
                assert_eq!(pragma(&mut reader, name).await, expected, "{name} of a reader");
            }
            sqlx::query("DELETE FROM job").execute(&mut *reader).await.expect_err("it only reads");
            drop(reader);
            opened.system.close().await;
        }
    }
}

#[tokio::test]
async fn the_files_are_the_owners_alone() {
    let sqlite = empty().await;
    let store = SqliteStore::open(sqlite.options()).await.unwrap();
    store.put(a_plugin(1, "p@1", "d", b"1")).await.unwrap();
    let files: Vec<_> = sqlite.directory.path().read_dir().unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(files.len(), 4, "the database, its log, its index, the lock");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.file_name());
    }
    store.close().await;
}

#[tokio::test]
async fn a_second_process_is_refused_under_another_name() {
    let sqlite = empty().await;
    let link = sqlite.directory.path().join("link.db");
    std::os::unix::fs::symlink(sqlite.options().path, &link).unwrap();
    let store = SqliteStore::open(sqlite.options()).await.unwrap();
    let error = open_error(&link).await;
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("another process")), "{error}");
    store.close().await;
    SqliteStore::open(SqliteOptions::new(&link)).await.unwrap().close().await;
}

/// Size of a payload of several pages.
const LARGE: usize = 40_000;

fn large(world: &World) -> NewJob {
    NewJob { body: Bytes::from(vec![b'x'; LARGE]), ..world.job(NOW) }
}

#[tokio::test]
async fn pruned_room_goes_back_to_the_disk() {
    let sqlite = empty().await;
    let world = World::new(Box::new(Arc::clone(&sqlite))).await;
    let len = || sqlite.options().path.metadata().unwrap().len();
    let jobs: Vec<NewJob> = (0..1_000).map(|_| large(&world)).collect();
    let ids = jobs.iter().map(|job| job.id).collect();
    world.store.insert(jobs.into()).await.unwrap();
    world.store.change(world.tenant, ids, JobChange::Cancel, NOW).await.unwrap();
    while world.prune(&[(State::Cancelled, NOW)], 100).await > 0 {}
    assert!(len() < 12 << 20, "{} bytes after 40 MB were pruned", len());
    assert_eq!(file::log_len(&sqlite.options().path), 0, "the log is in the file");
}

#[tokio::test]
async fn a_database_that_could_not_shrink_can_after_its_next_start() {
    let sqlite = empty().await;
    let mut before = shell(&sqlite.options().path).await;
    migrations::MIGRATIONS.run_direct(Some(1), &mut before, false).await.unwrap();
    assert_eq!(pragma(&mut before, "auto_vacuum").await, "0");
    sqlx::raw_sql(OLD).execute(&mut before).await.unwrap();
    before.close().await.unwrap();
    let store = SqliteStore::open(sqlite.options()).await.unwrap();
    assert_eq!(store.count(dead_of(GroupId(2))).await.unwrap(), 1);
    store.close().await;
    assert_eq!(pragma(&mut shell(&sqlite.options().path).await, "auto_vacuum").await, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_has_a_bound_whatever_readers_do() {
    let sqlite = empty().await;
    let world = World::new(Box::new(Arc::clone(&sqlite))).await;
    world.store.insert((0..500).map(|_| world.job(NOW)).collect::<Vec<_>>().into()).await.unwrap();
    let written = AtomicBool::new(false);
    // At any time at least one of the readers is reading.
    let reader = async || {
        let mut reads = 0;
        while !written.load(Ordering::Relaxed) {
            let filter = JobFilter::all(world.tenant, world.group);
            reads += world.store.jobs(JobsQuery { filter, before: None, limit: 500 }).await.unwrap().len();
        }
        reads
    };
    let longest = async {
        let mut longest = 0;
        for _ in 0..80 {
            let jobs: Vec<NewJob> = (0..100).map(|_| large(&world)).collect();
            world.store.insert(jobs.into()).await.unwrap();
            longest = longest.max(file::log_len(&sqlite.options().path));
        }
        written.store(true, Ordering::Relaxed);
        longest
    };
    let (longest, one, two, three, four) = futures_util::join!(longest, reader(), reader(), reader(), reader());
    assert!([one, two, three, four].iter().all(|reads| *reads > 0));
    let most = 2 * u64::from(open::LOG_BYTES);
    assert!(longest <= most, "{longest} bytes of log, after 320 MB were written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_damaged_page_end_and_all_others_are_claimed() {
    let backend = empty().await;
    let world = World::new(Box::new(Arc::clone(&backend))).await;
    for number in 0..40 {
        let body = Bytes::from(format!("payload-{number:02}-{}", "x".repeat(800)));
        world.store.insert(vec![NewJob { body, ..world.job(NOW) }].into()).await.unwrap();
    }
    let path = backend.options().path;
    world.store.close().await;
    *backend.open.lock().await = None;
    let mut bytes = std::fs::read(&path).unwrap();
    let text = b"payload-20-";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap() / 4_096 * 4_096;
    bytes[at..at + 4_096].fill(0xa5);
    std::fs::write(&path, bytes).unwrap();
    let store = world.reopened().await;
    let leased = conformance::claim(&*store, world.group, NOW, 100).await;
    assert!((32..40).contains(&leased.len()), "{}", leased.len());
    let stats = store.stats(world.tenant, world.group, NOW).await.unwrap();
    assert_eq!((stats.running, stats.dead), (leased.len() as u64, 40 - leased.len() as u64), "{stats:?}");
    assert!(conformance::claim(&*store, world.group, NOW, 100).await.is_empty());
}
