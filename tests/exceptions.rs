//! Exceptions and prints of policies in JavaScript and Python: log lines, and a failure with the exception's message.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{built, repository, run};

/// A judge as `carillon plugin new` makes it, whose body is replaced: status 299 raises what nobody meant, 298 a failure that is meant.
async fn judge(parent: &Path, language: &str, file: &str, change: (&str, &str), message: &str) -> Vec<Value> {
    let name = format!("raises-{language}");
    let new = ["plugin", "new", &name, "--role", "judge", "--lang", language, "--in", parent.to_str().unwrap()];
    run(&new, &[], "").await.ok();
    let directory = parent.join(&name);
    let source = std::fs::read_to_string(directory.join(file)).unwrap();
    assert!(source.contains(change.0), "{source}");
    std::fs::write(directory.join(file), source.replace(change.0, &format!("{}{}", change.1, change.0))).unwrap();
    if language == "js" {
        let installed = repository().join("examples/judge-json-ok-js/node_modules").canonicalize().unwrap();
        std::os::unix::fs::symlink(installed, directory.join("node_modules")).unwrap();
    }
    // The build runs these: a call that ends in anything else fails it.
    let failure = |message: &str, blame: &str| json!({"code": "policy.declared", "blame": blame, "message": message});
    for (status, fault) in [(299, failure(message, "policy")), (298, failure("mine: as I say", "config"))] {
        let test = json!({"role": "judge", "input": {"response": {"status": status}}, "fault": fault});
        std::fs::write(directory.join(format!("golden/{status}.json")), test.to_string()).unwrap();
    }
    let component = built(&directory).await;
    let file = parent.join("component.wasm");
    std::fs::write(&file, component).unwrap();
    let environment = [("CARILLON_POLICY__COMPILE_TIMEOUT", "5m")];
    let call = ["plugin", "run", file.to_str().unwrap(), "--role", "judge", "--json"];
    let called = run(&call, &environment, r#"{"response": {"status": 299}}"#).await;
    assert_eq!(called.code, Some(1), "{called:?}");
    let shown: Value = serde_json::from_str(&called.stdout).unwrap();
    assert_eq!((&shown["fault"]["message"], &shown["fault"]["blame"]), (&json!(message), &json!("policy")));
    shown["log"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_and_exceptions_of_python_are_reported() {
    let parent = tempfile::tempdir().unwrap();
    let change = (
        "        status, body = exchange.value.status, exchange.value.body\n",
        "        print('printed', end='')
        if exchange.value.status == 299:
            json.loads('no json')
        if exchange.value.status == 298:
            from componentize_py_types import Err
            from wit_world.imports.types import Blame, Failure
            raise Err(Failure(Blame.CONFIG, 'mine', 'as I say'))
",
    );
    let message = "exception: JSONDecodeError: Expecting value: line 1 column 1 (char 0)";
    let log = judge(parent.path(), "python", "policy.py", change, message).await;
    let lines: Vec<_> = log.iter().filter_map(Value::as_str).collect();
    assert!(lines.contains(&"info: printed"), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("error: ") && line.contains("policy.py:")), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_and_exceptions_of_javascript_are_reported() {
    let parent = tempfile::tempdir().unwrap();
    let change = (
        "    const { status, body } = exchange.val;\n",
        "    console.log('printed');
    if (exchange.val.status === 299) { exchange.nothing.at(0); }
    if (exchange.val.status === 298) { throw { blame: 'config', code: 'mine', message: 'as I say' }; }
",
    );
    let message = "exception: TypeError: can't access property \"at\", exchange.nothing is undefined";
    let log = judge(parent.path(), "js", "policy.js", change, message).await;
    let lines: Vec<_> = log.iter().filter_map(Value::as_str).collect();
    assert!(lines.contains(&"info: printed"), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("error: at ") && line.contains("policy.js")), "{lines:?}");
}
