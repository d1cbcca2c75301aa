//! What happens to jobs, as clients follow it.

use std::time::Duration;

use carillon_core::clock::Clock as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Answer, Api, Gate, ManualClock, Program, Receiver, Setup, TestHost, kinds, ms};

const NOWHERE: &str = "http://127.0.0.1:1/";

/// A group whose jobs are tried twice, a second apart.
fn twice() -> Value {
    json!({"retry": {"plugin": "backoff", "config": {"kind": "fixed", "base": "1s", "max": null, "max_attempts": 2, "jitter": 0}}})
}

fn id_of(event: &Value) -> &str {
    event["id"].as_str().unwrap()
}

fn number_of(event: &Value) -> u64 {
    id_of(event).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_followed_from_push_to_complete() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    receiver.on("/flaky", [Answer::status(503), Answer::status(200)]);
    host.api.put_group("g", twice()).await;
    let mut stream = host.api.follow("").await;
    let metadata = json!({"k": "v", "billing": {"invoice": "17"}});
    let job = json!({"url": receiver.url("/flaky"), "run_at": "+5s", "name": "n", "metadata": metadata});
    let posted = host.api.post_job("g", job).await;
    clock.set(ms(&posted["run_at"]));
    let events = stream.take(3).await;
    clock.advance(Duration::from_secs(1));
    let events = [events, stream.take(2).await].concat();
    assert_eq!(kinds(&events), ["push", "pop", "retry", "pop", "complete"]);
    for (index, event) in events.iter().enumerate() {
        assert_eq!((&event["group"], &event["job"]), (&json!("g"), &posted["id"]), "{event}");
        assert_eq!((&event["name"], &event["metadata"]), (&json!("n"), &metadata), "{event}");
        assert!(index == 0 || number_of(&events[index - 1]) < number_of(event), "ids rise");
    }
    let (start, times) = (ms(&posted["created_at"]), events.iter().map(|event| ms(&event["at"])));
    let times: Vec<_> = times.map(|at| at.since(start).as_secs()).collect();
    assert_eq!(times, [0, 5, 5, 6, 6]);
    assert_eq!((&events[0]["run_at"], &events[0]["attempt"]), (&posted["run_at"], &Value::Null));
    assert_eq!((&events[1]["attempt"], &events[3]["attempt"]), (&json!(1), &json!(2)));
    assert_eq!((&events[2]["status"], &events[2]["attempt"]), (&json!(503), &json!(1)));
    assert_eq!(ms(&events[2]["run_at"]), ms(&events[3]["at"]), "a retry says when");
    assert_eq!((&events[4]["status"], &events[4]["run_at"]), (&json!(200), &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_in_which_a_job_goes_on_or_ends_has_its_kind() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    let gate = Gate::closed();
    receiver.on("/500", [Answer::status(500)]);
    receiver.on("/held", [Answer::status(500).held(&gate)]);
    host.api.put_group("g", twice()).await;
    host.api.put_group("unsigned", json!({"sign": {"plugin": "werkzeug-cookie"}})).await;
    let mut stream = host.api.follow("").await;

    let once = json!({"retry": {"max_attempts": 1}});
    host.api.job_id("g", json!({"url": receiver.url("/500"), "policy": once})).await;
    let dead = stream.take(3).await;
    assert_eq!(kinds(&dead), ["push", "pop", "error"]);
    assert_eq!((&dead[2]["status"], &dead[2]["attempt"]), (&json!(500), &json!(1)));
    assert!(dead[2]["reason"].as_str().unwrap().contains("max_attempts"), "{}", dead[2]);

    host.api.job_id("g", json!({"url": receiver.url("/500"), "limits": {"ttl": "500ms"}})).await;
    assert_eq!(kinds(&stream.take(3).await), ["push", "pop", "expire"], "the retry would be too late");

    host.api.job_id("unsigned", json!({"url": receiver.url("/a"), "payload": {"a": 1}})).await;
    let held = stream.take(3).await;
    assert_eq!(kinds(&held), ["push", "pop", "hold"]);
    assert_eq!(held[2]["error"], "policy.declared");
    assert!(ms(&held[2]["run_at"]) > clock.now());
    host.api.post("/v1/groups/unsigned/pause", json!({})).await.expect(200);

    let waits = host.api.job_id("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
    host.api.delete(&format!("/v1/jobs/{waits}")).await.expect(200);
    host.api.delete(&format!("/v1/jobs/{waits}")).await.expect(200);
    assert_eq!(kinds(&stream.take(2).await), ["push", "cancel"]);

    let runs = host.api.job_id("g", json!({"url": receiver.url("/held")})).await;
    receiver.arrived("/held", 1).await;
    host.api.delete(&format!("/v1/jobs/{runs}")).await.expect(202);
    gate.release(1);
    let cancelled = stream.take(3).await;
    assert_eq!(kinds(&cancelled), ["push", "pop", "cancel"], "it is cancelled once, when its attempt is over");
    assert_eq!((&cancelled[2]["status"], &cancelled[2]["run_at"]), (&json!(500), &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_does_to_a_job_has_its_kind() {
    let clock = ManualClock::new();
    let host = Setup::with_clock(&clock).start().await;
    let receiver = Receiver::with_clock(clock.clone()).await;
    receiver.on("/500", [Answer::status(500)]);
    host.api.put_group("g", json!({})).await;
    let mut stream = host.api.follow("").await;
    let post = async |job: Value| host.api.post("/v1/groups/g/jobs", job).await.ok();

    let first = post(json!({"url": NOWHERE, "run_at": "+1h", "dedupe_key": "k"})).await;
    post(json!({"url": NOWHERE, "run_at": "+1h", "dedupe_key": "k"})).await;
    let events = stream.take(2).await;
    assert_eq!(kinds(&events), ["push", "dedupe_hit"]);
    assert_eq!(events[1]["job"], first["id"], "a hit names the job that stands for it");

    let path = format!("/v1/jobs/{}", first["id"].as_str().unwrap());
    host.api.raw(Method::PATCH, &path, json!({"name": "n"}).to_string()).await.expect(200);
    let moved = host.api.post(&format!("{path}/reschedule"), json!({"run_at": "+2h"})).await.expect(200);
    let events = stream.take(2).await;
    assert_eq!(kinds(&events), ["edit", "reschedule"]);
    assert_eq!((&events[1]["run_at"], &events[1]["name"]), (&moved["run_at"], &json!("n")));

    let debounced = json!({"url": NOWHERE, "debounce_key": "d", "debounce_seconds": 30, "debounce_always_delay": true});
    let waits = post(debounced.clone()).await;
    post(debounced).await;
    let events = stream.take(4).await;
    assert_eq!(kinds(&events), ["debounce_miss", "push", "debounce_hit", "edit"]);
    assert_eq!((&events[0]["run_at"], &events[1]["run_at"]), (&waits["run_at"], &waits["run_at"]));
    assert_eq!((&events[2]["job"], &events[3]["job"]), (&waits["id"], &waits["id"]), "it carries the newest request");
    host.api.delete(&format!("/v1/jobs/{}", waits["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(stream.next().await["kind"], "cancel");

    let once = json!({"retry": {"max_attempts": 1}});
    let dead = post(json!({"url": receiver.url("/500"), "policy": once})).await;
    assert_eq!(kinds(&stream.take(3).await), ["push", "pop", "error"]);
    host.api.post(&format!("/v1/jobs/{}/retry", dead["id"].as_str().unwrap()), json!({})).await.expect(200);
    let events = stream.take(3).await;
    assert_eq!(kinds(&events), ["redrive", "pop", "error"]);
    assert_eq!((&events[0]["count"], &events[1]["attempt"]), (&json!(1), &json!(2)));

    let follows = json!({"url": receiver.url("/a"), "name": "follows"});
    post(json!({"url": receiver.url("/a"), "on_success": follows})).await;
    let events = stream.take(6).await;
    assert_eq!(kinds(&events), ["push", "pop", "complete", "push", "pop", "complete"]);
    assert_eq!((&events[0]["name"], &events[3]["name"]), (&Value::Null, &json!("follows")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_gets_exactly_what_was_missed() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    let mut first = host.api.follow("").await;
    let start = first.block().await.unwrap().id.expect("a stream says where it begins");
    for name in ["a", "b"] {
        host.api.post_job("g", json!({"url": NOWHERE, "run_at": "+1h", "name": name})).await;
    }
    let seen = first.next().await;
    assert_eq!(seen["name"], "a");
    drop(first);
    for name in ["c", "d"] {
        host.api.post_job("g", json!({"url": NOWHERE, "run_at": "+1h", "name": name})).await;
    }
    let names = |events: &[Value]| events.iter().map(|event| event["name"].clone()).collect::<Vec<_>>();
    let mut second = host.api.follow_from("", Some(id_of(&seen))).await;
    assert_eq!(names(&second.take(3).await), ["b", "c", "d"]);
    let mut by_query = host.api.follow(&format!("?last_event_id={}", id_of(&seen))).await;
    assert_eq!(names(&by_query.take(3).await), ["b", "c", "d"]);
    let mut before_the_first = host.api.follow_from("", Some(&start)).await;
    assert_eq!(names(&before_the_first.take(4).await), ["a", "b", "c", "d"]);

    host.api.post_job("g", json!({"url": NOWHERE, "run_at": "+1h", "name": "e"})).await;
    for stream in [&mut second, &mut by_query, &mut before_the_first] {
        assert_eq!(stream.next().await["name"], "e", "and then goes on");
    }
    // The header is newer than the address that a client goes on using.
    let newest = id_of(&second_to_last(&host.api).await).to_owned();
    let mut both = host.api.follow_from("?last_event_id=1", Some(&newest)).await;
    assert_eq!(both.next().await["name"], "e");
}

/// The event before the newest, of five.
async fn second_to_last(api: &Api) -> Value {
    api.follow("?last_event_id=1").await.take(5).await.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_for_too_long_is_told() {
    // One of them is an entry of the audit log, of no tenant: five are left for the tenant.
    let host = Setup::new().set("events.keep", "6").start().await;
    host.api.put_group("g", json!({})).await;
    let post = async |api: &Api, count| {
        for _ in 0..count {
            api.post_job("g", json!({"url": NOWHERE, "run_at": "+1h"})).await;
        }
    };
    let mut stream = host.api.follow("").await;
    post(&host.api, 1).await;
    let seen = stream.next().await;
    post(&host.api, 5).await;
    let mut just_in_time = host.api.follow_from("", Some(id_of(&seen))).await;
    assert_eq!(kinds(&just_in_time.take(5).await), ["push"; 5]);
    post(&host.api, 1).await;
    let mut late = host.api.follow_from("?kind=push", Some(id_of(&seen))).await;
    let events = late.take(6).await;
    assert_eq!(kinds(&events), ["gap", "push", "push", "push", "push", "push"]);
    assert!(!events[0]["reason"].as_str().unwrap().is_empty());
    // A client that has seen the gap comes back without another one.
    let mut back = host.api.follow_from("", Some(id_of(&events[0]))).await;
    assert_eq!(back.take(5).await, events[1..]);
    drop((stream, just_in_time, late, back));

    let dir = host.dir.clone();
    host.stop().await;
    let host = Setup::new().in_dir(&dir).start().await;
    let mut after = host.api.follow_from("", Some(id_of(&events[5]))).await;
    let gap = after.next().await;
    assert_eq!(gap["kind"], "gap", "a restart forgets");
    assert!(number_of(&gap) > number_of(&events[5]), "ids rise over a restart");
    post(&host.api, 1).await;
    assert_eq!(after.next().await["kind"], "push");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_was_lost_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}/x.db", dir.path().display());
    let environment = [
        ("CARILLON_AUTH__ADMIN_TOKEN", ADMIN_TOKEN),
        ("CARILLON_EGRESS__ALLOW", "127.0.0.0/8"),
        ("CARILLON_ENGINE__LEASE", "1s"),
    ];
    let program = Program::serve(&["--store", &store], &environment).await;
    let receiver = Receiver::start().await;
    receiver.on("/held", [Answer::status(200).held(&Gate::closed()), Answer::status(200)]);
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    api.put_group("g", json!({})).await;
    let id = api.job_id("g", json!({"url": receiver.url("/held")})).await;
    receiver.arrived("/held", 1).await;
    program.kill().await;

    let program = Program::serve(&["--store", &store], &environment).await;
    let api = Api::new(&program.base, Some(ADMIN_TOKEN));
    let events = api.follow("?last_event_id=1").await.take(5).await;
    assert_eq!(kinds(&events), ["gap", "interrupt", "retry", "pop", "complete"]);
    assert!(events[1..].iter().all(|event| event["job"] == id), "{events:?}");
    assert_eq!((&events[1]["attempt"], &events[2]["error"]), (&json!(1), &json!("attempt.interrupted")));
    assert_eq!(events[3]["attempt"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_sees_its_own_events_only() {
    let host = TestHost::start().await;
    let (acme, other) = (host.api.tenant("acme").await, host.api.tenant("other").await);
    let mut streams = Vec::new();
    for api in [&acme, &other, &host.api] {
        api.put_group("g", json!({})).await;
        streams.push(api.follow("?group=g").await);
    }
    let mut for_acme = host.api.for_tenant("acme").follow("").await;
    let mut ids = Vec::new();
    for api in [&acme, &other, &host.api] {
        ids.push(api.job_id("g", json!({"url": NOWHERE, "run_at": "+1h"})).await);
        ids.push(api.job_id("g", json!({"url": NOWHERE, "run_at": "+1h"})).await);
    }
    for (stream, ids) in streams.iter_mut().zip(ids.chunks(2)) {
        let seen = stream.take(2).await;
        assert_eq!(seen.iter().map(|event| event["job"].clone()).collect::<Vec<_>>(), ids);
    }
    assert_eq!(for_acme.take(2).await[1]["job"], ids[1], "an operator follows whom it acts for");
    other.request(Method::GET, "/v1/events").send().await.unwrap();
    let foreign = other.follow(&format!("?job={}&last_event_id=1", ids[0])).await.next().await;
    assert_eq!(foreign["kind"], "gap", "nobody's job is followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_chosen_by_group_kind_and_job() {
    let (host, receiver) = (TestHost::start().await, Receiver::start().await);
    for group in ["a", "b"] {
        host.api.put_group(group, json!({})).await;
    }
    let (mut of_b, mut ends) = (host.api.follow("?group=b").await, host.api.follow("?kind=complete,error").await);
    let first = host.api.job_id("a", json!({"url": receiver.url("/a")})).await;
    let mut of_first = host.api.follow(&format!("?job={first}&last_event_id=1")).await;
    host.api.until_state(&first, "succeeded").await;
    let second = host.api.job_id("b", json!({"url": receiver.url("/b")})).await;
    host.api.until_state(&second, "succeeded").await;
    assert_eq!(kinds(&of_b.take(3).await), ["push", "pop", "complete"]);
    let both = ends.take(2).await;
    assert_eq!((&both[0]["job"], &both[1]["job"]), (&json!(first), &json!(second)));
    let events = of_first.take(4).await;
    assert_eq!(kinds(&events), ["gap", "push", "pop", "complete"]);
    assert!(events[1..].iter().all(|event| event["job"] == first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_makes_no_sense_is_refused() {
    let host = TestHost::start().await;
    host.api.put_group("g", json!({})).await;
    for query in [
        "?kind=nonsense",
        "?kind=push,",
        "?kind=",
        "?job=1",
        "?last_event_id=x",
        "?last_event_id=-1",
        "?group=g&group=g",
    ] {
        host.api.get(&format!("/v1/events{query}")).await.problem(400);
    }
    host.api.get("/v1/events?last_event_id=99999999999999999999").await.problem(400);
    host.api.get("/v1/events?group=none").await.problem(404);
    for id in ["x", "1 2", "ü"] {
        let request = host.api.request(Method::GET, "/v1/events").header("last-event-id", id);
        host.api.send(request).await.problem(400);
    }
    host.api.follow("?last_event_id=").await;
    host.api.follow_from("", Some("18446744073709551615")).await.until("gap").await;
}
