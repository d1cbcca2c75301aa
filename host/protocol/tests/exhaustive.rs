//! Explores the model completely: without a mistake, no rule is broken; with each of them, one is.
#![expect(clippy::print_stdout, reason = "the numbers of states and the counterexamples are results")]

use carillon_protocol::model::Protocol;
use carillon_protocol::progress::{Progress, progress};
use carillon_protocol::rules::Rule;
use carillon_protocol::setting::{Faults, Mistake, Setting};
use carillon_protocol::trace::trace;
use stateright::{Checker as _, HasDiscoveries, Model as _};

const NONE: Faults = Faults { crashes: 0, stalls: 0, slow_calls: 0, lost_calls: 0, failures: 0 };
const CRASH: Faults = Faults { crashes: 1, ..NONE };
const STALL: Faults = Faults { stalls: 1, ..NONE };
const SLOW: Faults = Faults { slow_calls: 1, ..NONE };
const LOST: Faults = Faults { lost_calls: 1, ..NONE };

/// Explores all states, and asserts that no rule is broken in more than `least` of them.
fn holds(setting: Setting, least: usize) {
    let checker = Protocol { setting: setting.clone() }.checker().threads(2).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{setting:?}: {states} states, up to {depth} steps");
    if let Some((rule, path)) = checker.discoveries().into_iter().next() {
        panic!("`{rule}` is broken in {setting:?}:\n{}", trace(path));
    }
    assert!(states > least, "{states} states: the model has become smaller");
}

#[test]
fn crashes_and_failures_break_no_rule() {
    holds(Setting::calm(2).with(Faults { crashes: 2, ..NONE }), 13_000);
    holds(Setting::calm(2).with(Faults { crashes: 1, failures: 1, ..NONE }), 15_000);
    holds(Setting::calm(3).with(CRASH), 7_000);
    holds(Setting { jobs: 2, ..Setting::calm(2).with(CRASH) }, 65_000);
}

#[test]
fn slow_and_lost_calls_break_no_rule() {
    holds(Setting::calm(2).with(Faults { slow_calls: 2, lost_calls: 1, ..NONE }), 33_000);
    holds(Setting::calm(2).with(Faults { lost_calls: 2, ..NONE }), 8_500);
    holds(Setting { jobs: 2, ..Setting::calm(2).with(SLOW) }, 4_500);
    holds(Setting::calm(2).with(Faults { crashes: 1, slow_calls: 1, ..NONE }), 16_000);
    holds(Setting::calm(2).with(Faults { crashes: 1, lost_calls: 1, ..NONE }), 25_000);
}

#[test]
fn stall_and_crash_break_no_rule() {
    holds(Setting::calm(2).with(Faults { stalls: 1, crashes: 1, ..NONE }), 750_000);
}

#[test]
fn stall_and_slow_call_break_no_rule() {
    holds(Setting::calm(2).with(Faults { stalls: 1, slow_calls: 1, ..NONE }), 480_000);
}

#[test]
fn stall_and_lost_call_break_no_rule() {
    holds(Setting::calm(2).with(Faults { stalls: 1, lost_calls: 1, ..NONE }), 770_000);
}

#[test]
fn stall_and_failure_break_no_rule() {
    holds(Setting::calm(2).with(Faults { stalls: 1, failures: 1, ..NONE }), 800_000);
}

#[test]
fn stall_of_a_node_with_two_jobs_breaks_no_rule() {
    holds(Setting { jobs: 2, ..Setting::calm(1).with(STALL) }, 460_000);
}

#[test]
fn clocks_that_are_behind_break_no_rule() {
    holds(behind(STALL), 38_000);
    holds(behind(Faults { crashes: 1, lost_calls: 1, ..NONE }), 16_000);
}

/// A lease counts from the node's time. What a call takes, and what the clock is behind, must be less than a lease without its first third.
#[test]
fn slow_call_of_a_node_whose_clock_is_far_behind_costs_a_request() {
    let found = counterexample(Protocol { setting: behind(SLOW) }, Rule::FewSends);
    println!("{}", found.expect("a lease that expires"));
}

/// Returns a setting of two nodes, of which the second is behind by a third of a lease.
fn behind(faults: Faults) -> Setting {
    Setting { clocks_behind: vec![0, 1], ..Setting::calm(2).with(faults) }
}

#[test]
fn changes_by_clients_break_no_rule() {
    holds(Setting { changes: 2, ..Setting::calm(2).with(STALL) }, 200_000);
    holds(Setting { changes: 2, ..Setting::calm(2).with(Faults { crashes: 1, lost_calls: 1, ..NONE }) }, 50_000);
}

/// From each state, all jobs end when no more faults happen.
#[test]
fn jobs_end_after_all_faults() {
    let faults = [
        NONE,
        Faults { crashes: 1, failures: 1, ..NONE },
        Faults { crashes: 1, lost_calls: 1, ..NONE },
        Faults { slow_calls: 1, lost_calls: 1, ..NONE },
        STALL,
    ];
    for faults in faults {
        let setting = Setting { changes: 1, attempts: 3, ..Setting::calm(2).with(faults) };
        let states = match progress(&Protocol { setting: setting.clone() }) {
            Progress::Ends(states) => states,
            Progress::Stuck(world) => panic!("{setting:?}: a job never ends: {world}"),
            Progress::Endless(world) => panic!("{setting:?}: steps go on for ever: {world}"),
        };
        println!("{setting:?}: all jobs end, from {states} states");
        let checker = Protocol { setting }.checker().threads(2).spawn_bfs().join();
        assert_eq!(states, checker.unique_state_count(), "both have seen all states");
    }
}

/// Returns a shortest way in which a rule is broken: one thread visits near states first.
fn counterexample(protocol: Protocol, rule: Rule) -> Option<String> {
    let wanted = HasDiscoveries::AllOf([rule.name()].into());
    protocol.checker().finish_when(wanted).spawn_bfs().join().discovery(rule.name()).map(trace)
}

/// What a mistake leads to.
enum Breaks {
    Rule(Rule),
    Stuck,
    Endless,
}

/// Returns a small setting in which a mistake shows, and what it leads to.
fn consequence(mistake: Mistake) -> (Setting, Breaks) {
    let (one, two) = (Setting::calm(1), Setting::calm(2));
    let (setting, breaks) = match mistake {
        Mistake::SettlementIgnoresToken => {
            (one.with(Faults { lost_calls: 2, ..NONE }), Breaks::Rule(Rule::StaleSettlementChangesNothing))
        }
        Mistake::SettlementIgnoresState => {
            (Setting { changes: 1, ..one.with(Faults { failures: 1, ..LOST }) }, Breaks::Rule(Rule::OneEnd))
        }
        Mistake::HoldsByJob => (one.with(LOST), Breaks::Rule(Rule::FewSends)),
        Mistake::RescueOfHeldLeases | Mistake::RescueDuringClaim => {
            (one.with(STALL), Breaks::Rule(Rule::NothingOwnTakenBack))
        }
        Mistake::RescueIgnoresExpiry => (two.with(STALL), Breaks::Rule(Rule::OneLiveLease)),
        Mistake::RescueSpendsNothing => (one.with(CRASH), Breaks::Rule(Rule::NumbersAreUnique)),
        Mistake::ExtensionPeriodFromResponse => {
            (two.with(Faults { slow_calls: 2, ..NONE }), Breaks::Rule(Rule::FewSends))
        }
        Mistake::NoExtension => (two, Breaks::Rule(Rule::FewSends)),
        Mistake::ExtensionMovesBack => (two.with(LOST), Breaks::Rule(Rule::FewSends)),
        Mistake::LeaseFromResponse => (two.with(STALL), Breaks::Rule(Rule::NoSendAfterTakeover)),
        Mistake::SendAtClaim | Mistake::ClockAhead => (one, Breaks::Rule(Rule::NeverEarly)),
        Mistake::SendWithoutCheck | Mistake::CheckBeforePreparing => {
            (one.with(STALL), Breaks::Rule(Rule::NoSendUnderExpiredLease))
        }
        Mistake::ReleaseSpendsAttempt => (one.with(STALL), Breaks::Rule(Rule::NoGaps)),
        Mistake::CancelEndsRunning => (Setting { changes: 1, ..two }, Breaks::Rule(Rule::NoSendAfterTakeover)),
        Mistake::SettlementIsNotRepeated => (one.with(LOST), Breaks::Rule(Rule::FewSends)),
        Mistake::NoRescue => (one.with(CRASH), Breaks::Stuck),
        Mistake::ExtensionWithoutPause => (one, Breaks::Endless),
    };
    (Setting { mistake: Some(mistake), ..setting }, breaks)
}

#[test]
fn each_mistake_is_found() {
    for mistake in Mistake::ALL {
        let (setting, breaks) = consequence(mistake);
        let protocol = Protocol { setting };
        match breaks {
            Breaks::Stuck => {
                let Progress::Stuck(world) = progress(&protocol) else { panic!("{mistake:?} is not found") };
                println!("{mistake:?}: a job never ends: {world}\n");
            }
            Breaks::Endless => {
                let Progress::Endless(world) = progress(&protocol) else { panic!("{mistake:?} is not found") };
                println!("{mistake:?}: steps go on for ever without time: {world}\n");
            }
            Breaks::Rule(rule) => {
                let Some(found) = counterexample(protocol, rule) else {
                    panic!("{mistake:?} does not break `{}`", rule.name())
                };
                println!("{mistake:?} breaks `{}`:\n{found}", rule.name());
            }
        }
    }
}
