//! Exceptions, prints and results of the wrong type of policies in JavaScript and Python: log lines, and a failure with a message.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{built, repository, run};

/// A plugin as `carillon plugin new` makes it, whose source is changed before it is built.
async fn changed(parent: &Path, role: &str, language: &str, file: &str, change: (&str, &str)) -> std::path::PathBuf {
    let name = format!("wrong-{role}-{language}");
    let new = ["plugin", "new", &name, "--role", role, "--lang", language, "--in", parent.to_str().unwrap()];
    run(&new, &[], "").await.ok();
    let directory = parent.join(&name);
    let source = std::fs::read_to_string(directory.join(file)).unwrap();
    assert!(source.contains(change.0), "{source}");
    std::fs::write(directory.join(file), source.replace(change.0, &format!("{}{}", change.0, change.1))).unwrap();
    if language == "js" {
        let installed = repository().join("examples/judge-json-ok-js/node_modules").canonicalize().unwrap();
        std::os::unix::fs::symlink(installed, directory.join("node_modules")).unwrap();
    }
    let component = parent.join(format!("{name}.wasm"));
    std::fs::write(&component, built(&directory).await).unwrap();
    component
}

/// The fault of a call.
async fn fault(component: &Path, role: &str, call: Value) -> Value {
    let environment = [("CARILLON_POLICY__COMPILE_TIMEOUT", "5m")];
    let arguments = ["plugin", "run", component.to_str().unwrap(), "--role", role, "--json"];
    let called = run(&arguments, &environment, &call.to_string()).await;
    assert_eq!(called.code, Some(1), "{called:?}");
    serde_json::from_str::<Value>(&called.stdout).unwrap()["fault"].clone()
}

/// Each url of a request, or status of a response, makes the policy return another wrong value.
async fn returns_wrong(language: &str, file: &str, encodes: (&str, &str), judges: (&str, &str), expected: [&str; 6]) {
    let parent = tempfile::tempdir().unwrap();
    let encode = changed(parent.path(), "encode", language, file, encodes).await;
    let judge = changed(parent.path(), "judge", language, file, judges).await;
    let wrong =
        |text: &str| json!({"code": "policy.declared", "blame": "policy", "message": format!("wrong-type: {text}")});
    for (number, text) in expected.iter().enumerate() {
        let found = if number < 3 {
            let request = json!({"method": "POST", "url": format!("http://x/{number}"), "headers": [], "body": "x"});
            fault(&encode, "encode", json!({"request": request})).await
        } else {
            fault(&judge, "judge", json!({"response": {"status": 290 + number}})).await
        };
        assert_eq!(found, wrong(text));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn result_of_the_wrong_type_in_python_names_the_role_and_what_is_expected() {
    let encodes = (
        "    def encode(self, attempt, config, request):\n",
        "        if request.url.endswith('/0'):
            return None
        if request.url.endswith('/1'):
            request.body = 'text'
        if request.url.endswith('/2'):
            request.headers = [('a', b'b')]
",
    );
    let judges = (
        "        status, body = exchange.value.status, exchange.value.body\n",
        "        if status == 293:
            return True
        if status == 294:
            return Verdict('success', 'good')
        if status == 295:
            return Verdict(Outcome.SUCCESS, 5)
",
    );
    let expected = [
        "encode: the result of `encode` must be a Request, not None",
        "encode: `body` of the request must be bytes, not 'text'",
        "encode: `headers[0]` of the request must be a Header, not a value of the type tuple",
        "judge: the result of `judge` must be a Verdict, not a value of the type bool",
        "judge: `outcome` of the verdict must be an Outcome, not 'success'",
        "judge: `reason` of the verdict must be a str, not a value of the type int",
    ];
    returns_wrong("python", "policy.py", encodes, judges, expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn result_of_the_wrong_type_in_javascript_names_the_role_and_what_is_expected() {
    let encodes = (
        "  encode(attempt, config, request) {\n",
        "    if (request.url.endsWith('/0')) { return undefined; }
    if (request.url.endsWith('/1')) { return { ...request, body: 'text' }; }
    if (request.url.endsWith('/2')) { return Promise.resolve({ ...request, headers: [['a', 'b']] }); }
",
    );
    let judges = (
        "    const { status, body } = exchange.val;\n",
        "    if (status === 293) { return true; }
    if (status === 294) { return { outcome: 'good', reason: 'good' }; }
    if (status === 295) { return { outcome: 'success', reason: 5 }; }
",
    );
    let expected = [
        "encode: the result of `encode` must be an object with `method`, `url`, `headers` and `body`, not undefined",
        "encode: `body` of the request must be a Uint8Array, not \"text\"",
        "encode: `headers[0].name` of the request must be a string, not undefined",
        "judge: the result of `judge` must be an object with `outcome` and `reason`, not a value of the type Boolean",
        "judge: `outcome` of the verdict must be 'success', 'retryable' or 'permanent', not \"good\"",
        "judge: `reason` of the verdict must be a string, not a value of the type Number",
    ];
    returns_wrong("js", "policy.js", encodes, judges, expected).await;
}

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
