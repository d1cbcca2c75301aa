//! Number of compilations of a component. The compiler is a script that records each call.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::super::code_budget::CodeBudget;
use super::super::engines::Engines;
use super::super::{Cache, CompileBudget, Compiler, ComponentSource, LargeLimits, Registry};
use super::{Digest, Guest, LoadError, PLAIN, engine, limits};
use carillon_core::clock::UnixMs;
use carillon_core::job::TenantId;

/// Number of concurrent callers.
const CALLERS: i64 = 50;

const BUDGET: CompileBudget = CompileBudget { seconds: 600, now: UnixMs(0) };

struct Source(Bytes);

#[async_trait]
impl ComponentSource for Source {
    async fn component(&self, _digest: &Digest) -> Result<Option<Bytes>, String> {
        Ok(Some(self.0.clone()))
    }
}

/// Registry whose compiler does what `script` says, with `artefact` in the directory for the guest.
struct Bench {
    dir: TempDir,
    registry: Registry,
    component: Bytes,
}

impl Bench {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let component = Guest::new("judge", PLAIN).build();
        std::fs::write(dir.path().join("artefact"), engine::compile(&component).unwrap()).unwrap();
        let program = dir.path().join("compiler");
        let place = dir.path().display();
        let text = format!("#!/bin/sh\ncd '{place}'\necho compiled >> calls\n/bin/cat > component\n{script}\n");
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let large = LargeLimits {
            component: 32 << 20,
            memory: 64 << 20,
            table_elements: 40_000,
            fuel: 50_000_000,
            deadline: Duration::from_secs(60),
        };
        let engines = Engines::new(&limits(), large, 4, 4 << 20, CodeBudget::new(usize::MAX)).unwrap();
        let cache = Cache::new(dir.path().join("cache"), Zeroizing::new([1; 32]), engines.compatible(), 1 << 30);
        let compiler = Compiler::new(program, Duration::from_secs(60), 1 << 30);
        Self { registry: Registry::new(engines, compiler, Some(cache)), component: component.into(), dir }
    }

    fn calls(&self) -> usize {
        std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default().lines().count()
    }

    fn kept(&self) -> usize {
        files(&self.dir.path().join("cache"))
    }
}

fn files(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_use_a_component_it_is_compiled_once() {
    let bench = Bench::new("/bin/cat artefact");
    let (digest, source) = (Digest::from_bytes(&bench.component), Source(bench.component.clone()));
    let plugins = join_all((0..CALLERS).map(|_| bench.registry.get(&digest, &source))).await;
    let plugins: Vec<_> = plugins.into_iter().map(Result::unwrap).collect();
    assert!(plugins.iter().all(|plugin| Arc::ptr_eq(plugin, &plugins[0])));
    assert_eq!((bench.calls(), bench.kept()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_upload_a_component_it_is_compiled_once() {
    let bench = Bench::new("/bin/cat artefact");
    let admit = |tenant| bench.registry.admit(TenantId(tenant), BUDGET, &bench.component);
    let admitted = join_all((0..CALLERS).map(admit)).await;
    let admitted: Vec<_> = admitted.into_iter().map(Result::unwrap).collect();
    assert_eq!((bench.calls(), bench.kept()), (1, 0), "nothing is kept of what nobody has accepted");
    bench.registry.keep(&admitted[0]).await;
    assert_eq!(bench.kept(), 1);
    admit(7).await.unwrap();
    assert_eq!(bench.calls(), 1, "it is loaded from the cache");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_compile_is_not_tried_by_each_who_uploads_it() {
    let bench = Bench::new("echo no >&2; exit 1");
    let refused =
        join_all((0..CALLERS).map(|tenant| bench.registry.admit(TenantId(tenant), BUDGET, &bench.component))).await;
    for refused in refused {
        assert!(matches!(refused.map(drop), Err(LoadError::Compile(text)) if text == "no"));
    }
    assert_eq!((bench.calls(), bench.kept()), (1, 0));
    assert!(bench.registry.admit(TenantId(0), BUDGET, &bench.component).await.is_err());
    assert_eq!(bench.calls(), 2, "who comes later gets another look");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budget_that_is_used_up_refuses_that_tenant_only() {
    let bench = Bench::new("echo no >&2; exit 1");
    let spent = CompileBudget { seconds: 0, ..BUDGET };
    // The other tenant's upload of the same bytes goes on.
    let (refused, failed) = tokio::join!(
        bench.registry.admit(TenantId(1), spent, &bench.component),
        bench.registry.admit(TenantId(2), BUDGET, &bench.component)
    );
    assert!(matches!(refused.map(drop), Err(LoadError::OverBudget { seconds: 0, .. })));
    assert!(matches!(failed.map(drop), Err(LoadError::Compile(_))));
    assert_eq!(bench.calls(), 1);
    let used = |tenant| bench.registry.compile_time(TenantId(tenant), BUDGET.now);
    assert!(used(1).is_zero() && !used(2).is_zero(), "a compilation that fails counts as well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compiler_without_confinement_still_compiles() {
    let bench = Bench::new("echo 'unconfined: seccomp' >&2; /bin/cat artefact");
    bench.registry.admit(TenantId(1), BUDGET, &bench.component).await.unwrap();
    let bench = Bench::new("printf 'unconfined: landlock\\nno\\n' >&2; exit 1");
    let refused = bench.registry.admit(TenantId(1), BUDGET, &bench.component).await.map(drop);
    assert!(matches!(&refused, Err(LoadError::Compile(text)) if text == "no"), "{refused:?}");
}
