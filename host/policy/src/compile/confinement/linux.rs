//! The means of Linux: priority, Landlock and seccomp.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use landlock::{ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetStatus, Scope};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Added to the priority value of the server, so that other work goes first.
const NICE: libc::c_int = 10;

/// Newest version of Landlock that is used; of an older one the kernel enforces what it knows.
const LANDLOCK: ABI = ABI::V6;

/// System calls that a thread needs to compute, to allocate memory, to read and write what is open, and to end.
const ALLOWED: [libc::c_long; 29] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_write,
    libc::SYS_writev,
];

/// System calls that map memory, and the argument that would make it executable.
const MAPPING: [libc::c_long; 2] = [libc::SYS_mmap, libc::SYS_mprotect];
const PROTECTION_ARGUMENT: u8 = 2;

/// Lowers the priority of the process.
#[expect(unsafe_code, reason = "`nice` takes a number and has no precondition")]
pub(super) fn lower_priority() -> anyhow::Result<()> {
    // The result of a call that succeeds may be -1 as well, but not for a positive priority value.
    ensure!(unsafe { libc::nice(NICE) } != -1, "the priority cannot be lowered");
    Ok(())
}

/// Keeps this thread, and those that it starts, from files, TCP, other processes' abstract sockets and signals to them.
pub(super) fn restrict_files() -> anyhow::Result<()> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?;
    let status = ruleset.create()?.restrict_self()?;
    ensure!(status.ruleset != RulesetStatus::NotEnforced, "the kernel has no Landlock");
    Ok(())
}

/// Refuses, for all threads of the process, each system call that is not in the list of those allowed. Also sets `no_new_privs`.
pub(super) fn filter_system_calls() -> anyhow::Result<()> {
    seccompiler::apply_filter_all_threads(&filter()?).context("the kernel has no seccomp")
}

fn filter() -> anyhow::Result<BpfProgram> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.into_iter().map(|call| (call, Vec::new())).collect();
    let executable = u64::try_from(libc::PROT_EXEC)?;
    for call in MAPPING {
        let is_not_executable =
            SeccompCondition::new(PROTECTION_ARGUMENT, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(executable), 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![is_not_executable])?]);
    }
    // A process that aborts sends the signal to itself.
    let is_itself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(std::process::id()))?;
    rules.insert(libc::SYS_tgkill, vec![SeccompRule::new(vec![is_itself])?]);
    let refused = SeccompAction::Errno(u32::try_from(libc::EPERM)?);
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, std::env::consts::ARCH.try_into()?)?;
    Ok(filter.try_into()?)
}
