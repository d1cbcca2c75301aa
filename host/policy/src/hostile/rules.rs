//! Consequences of a fault in each role: the later calls, and the ruling. `settle` decides what becomes of the job.

use proptest::prelude::*;

use super::*;
use crate::{Blame, Plan, PlanStep, PolicyCaller, Quarantine, QuarantineRules, QuarantineTimes, Role, Ruling, Watch};
use carillon_core::clock::UnixMs;
use carillon_core::job::{GroupId, Outcome, TenantId};
use carillon_testing::guest::{self, ECHO, ENDLESS, Guest, PLAIN, failure};

const NOW: UnixMs = UnixMs(1_795_168_800_251);

fn step(role: Role, plugin: &Arc<Plugin>, config: &str) -> PlanStep {
    PlanStep {
        role,
        name: "guest@1.0.0".into(),
        plugin: Arc::clone(plugin),
        config: config.into(),
        config_digest: Digest::from_bytes(config.as_bytes()),
    }
}

/// Makes a plan of good guests, one of whose roles is played by `guest`.
fn plan(role: Role, guest: &Guest) -> Plan {
    let good = Guest::new("encode", ECHO).role("sign", PLAIN).role("judge", PLAIN).role("retry", PLAIN);
    let (good, bad) = (Arc::new(plugin(&good)), Arc::new(plugin(guest)));
    let used = |own: Role| step(own, if own == role { &bad } else { &good }, "{}");
    Plan {
        encode: vec![used(Role::Encode)],
        sign: Some((used(Role::Sign), vec![])),
        auth_headers: vec![],
        client_key: None,
        judge: used(Role::Judge),
        retry: used(Role::Retry),
    }
}

/// Makes a watch on calls that belong to no job.
fn watch() -> Watch {
    let rules = QuarantineRules { threshold: 3, window: Duration::from_secs(60), period: Duration::from_secs(300) };
    let (tenant, group) = (TenantId(1), GroupId(1));
    let quarantine = Arc::new(Quarantine::new(rules));
    Watch { quarantine, tenant, group, binding: 1, job: None, lifted_at: UnixMs(0) }
}

const BAD: [(&str, FaultCode); 3] =
    [(ENDLESS, FaultCode::FuelExhausted), ("(unreachable)", FaultCode::Trap), ("(i32.const -8)", FaultCode::BadAnswer)];

#[test]
fn encoder_or_signer_fails_nothing_is_called_after_it() {
    for role in [Role::Encode, Role::Sign] {
        for (body, code) in BAD {
            let watch = watch();
            let caller = PolicyCaller { limits: &limits(), watch: Some(&watch), now: NOW };
            let prepared = caller.prepare(&plan(role, &Guest::new(role.as_str(), body)), &attempt(), request());
            let (blamed, fault) = prepared.request.unwrap_err();
            assert_eq!((blamed, fault.code), (role, code));
            assert_eq!(prepared.uses.last().unwrap().fault, Some(code.into()));
            assert_eq!(prepared.uses.len(), if role == Role::Encode { 1 } else { 2 }, "nobody is called after a fault");
        }
    }
}

#[test]
fn declared_failure_names_who_must_act() {
    for (wire, blame) in [(0, Blame::Job), (1, Blame::Config), (2, Blame::Policy)] {
        let guest = Guest::new("sign", PLAIN).with(&failure(4, wire, "wrong-payload", "not an object"));
        let watch = watch();
        let caller = PolicyCaller { limits: &limits(), watch: Some(&watch), now: NOW };
        let (role, fault) = caller.prepare(&plan(Role::Sign, &guest), &attempt(), request()).request.unwrap_err();
        assert_eq!((role, fault.code, fault.blame), (Role::Sign, FaultCode::Declared, blame));
    }
}

#[test]
fn without_a_judge_another_try_may_help() {
    for (body, code) in BAD {
        let watch = watch();
        let caller = PolicyCaller { limits: &limits(), watch: Some(&watch), now: NOW };
        let decided = caller.decide(&plan(Role::Judge, &Guest::new("judge", body)), &attempt(), &exchange(), None, &[]);
        assert_eq!(decided.verdict.outcome, Outcome::Retryable);
        assert_eq!(decided.fault.unwrap().code, code.into());
        assert_eq!(decided.ruling, Ruling::RetryAfter(Duration::ZERO), "the retry policy is asked all the same");
        assert_eq!(decided.uses.len(), 2);
    }
}

#[test]
fn without_a_retry_policy_the_host_backs_off_by_itself() {
    let refuses = Guest::new("judge", PLAIN).with(&guest::words(guest::ANSWER, &[0, 1]));
    for (body, code) in BAD {
        let watch = watch();
        let caller = PolicyCaller { limits: &limits(), watch: Some(&watch), now: NOW };
        let mut plan = plan(Role::Retry, &Guest::new("retry", body));
        plan.judge = step(Role::Judge, &Arc::new(plugin(&refuses)), "{}");
        let decided = caller.decide(&plan, &attempt(), &exchange(), None, &[]);
        assert_eq!(decided.fault.unwrap().code, code.into());
        // Delay after the third attempt: 8 s, less up to a fifth.
        let Ruling::RetryAfter(delay) = decided.ruling else { panic!("{:?}", decided.ruling) };
        assert!(delay > Duration::from_millis(6_399) && delay <= Duration::from_secs(8), "{delay:?}");
    }
}

#[test]
fn the_longest_delay_of_a_retry_policy_is_bounded() {
    let refuses = Guest::new("judge", PLAIN).with(&guest::words(guest::ANSWER, &[0, 1]));
    let never = Guest::new("retry", PLAIN).with(&guest::words(guest::ANSWER + 16, &[u32::MAX, u32::MAX]));
    let watch = watch();
    let caller = PolicyCaller { limits: &limits(), watch: Some(&watch), now: NOW };
    let mut plan = plan(Role::Retry, &never);
    plan.judge = step(Role::Judge, &Arc::new(plugin(&refuses)), "{}");
    let decided = caller.decide(&plan, &attempt(), &exchange(), None, &[]);
    assert_eq!(decided.ruling, Ruling::RetryAfter(Duration::from_secs(3_660 * 24 * 60 * 60)));
}

#[test]
fn three_faults_quarantine_the_component_with_that_config_only() {
    let watch = watch();
    let bad = Arc::new(plugin(&Guest::new("sign", "(unreachable)")));
    let mut plan = plan(Role::Encode, &Guest::new("encode", ECHO));
    let mut call = |config: &str, now: UnixMs| {
        plan.sign = Some((step(Role::Sign, &bad, config), vec![]));
        let prepared =
            PolicyCaller { limits: &limits(), watch: Some(&watch), now }.prepare(&plan, &attempt(), request());
        (prepared.request.unwrap_err().1.code, prepared.uses.last().unwrap().fuel)
    };
    for _ in 0..3 {
        assert_eq!(call("{}", NOW).0, FaultCode::Trap);
    }
    assert_eq!(call("{}", NOW), (FaultCode::Quarantined, 0), "it is not even called");
    assert_eq!(call(r#"{"a":1}"#, NOW).0, FaultCode::Trap, "another config is another matter");
    assert_eq!(call("{}", NOW.plus(Duration::from_secs(300))).0, FaultCode::Trap, "after its time it is called again");
    let entry = |config: &str| {
        let policy = watch.policy_key(&bad.digest, &Digest::from_bytes(config.as_bytes()));
        watch.quarantine.entry(&policy, QuarantineTimes { now: NOW, lifted_at: UnixMs(0) })
    };
    let fault = entry("{}").map(|entry| entry.fault);
    assert_eq!((fault, entry(r#"{"a":1}"#)), (Some(FaultCode::Trap), None));
}

#[test]
fn without_a_watch_nobody_is_quarantined_and_everybody_is_called() {
    let bad = Arc::new(plugin(&Guest::new("sign", "(unreachable)")));
    let plan =
        Plan { sign: Some((step(Role::Sign, &bad, "{}"), vec![])), ..plan(Role::Encode, &Guest::new("encode", ECHO)) };
    let watch = watch();
    let call = |watch| {
        let prepared = PolicyCaller { limits: &limits(), watch, now: NOW }.prepare(&plan, &attempt(), request());
        prepared.request.unwrap_err().1.code
    };
    assert!((0..5).all(|_| call(None) == FaultCode::Trap));
    assert!((0..3).all(|_| call(Some(&watch)) == FaultCode::Trap));
    assert_eq!((call(Some(&watch)), call(None)), (FaultCode::Quarantined, FaultCode::Trap));
}

#[test]
fn a_failure_that_is_not_the_plugins_does_not_quarantine_it() {
    let watch = watch();
    let plan = plan(Role::Sign, &Guest::new("sign", PLAIN).with(&failure(4, 1, "no-key", "a key is needed")));
    for _ in 0..5 {
        let caller = PolicyCaller { limits: &limits(), watch: Some(&watch), now: NOW };
        assert_eq!(caller.prepare(&plan, &attempt(), request()).request.unwrap_err().1.code, FaultCode::Declared);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For any bytes of the result, the call ends in a result or in one of two faults.
    #[test]
    fn any_answer_is_an_answer_or_a_fault(bytes: [u8; 48], role in 0_usize..4) {
        let role = ["encode", "sign", "judge", "retry"][role];
        let guest = plugin(&Guest::new(role, PLAIN).with(&guest::bytes(guest::ANSWER, &bytes)));
        let fault = match role {
            "encode" => encode(&guest).result.err(),
            "sign" => sign(&guest, &[]).result.err(),
            "judge" => judge(&guest).result.err(),
            _ => retry(&guest).result.err(),
        };
        if let Some(fault) = fault {
            prop_assert!(matches!(fault.code, FaultCode::BadAnswer | FaultCode::Declared), "{fault}");
        }
    }
}
