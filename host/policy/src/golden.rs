//! Golden tests that authors embed in a component: calls with their expected results.
//!
//! They are a custom section at the end of the component. So the digest covers them, they are wherever the component is, and they cost
//! nothing at run time. A component whose tests fail is not accepted: the behaviour that its author relied on does not hold on this server.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wasm_encoder::{ComponentSection as _, CustomSection};
use wasmparser::{Parser, Payload};

use super::case::{CallCase, NotACase};
use super::{Fault, FaultCode, Limits, Plugin};
use carillon_core::clock::UnixMs;

/// Name of the section. Its content is a JSON array of tests.
const SECTION: &str = "carillon:golden";

/// Maximum number of tests in a component.
pub const GOLDEN_LIMIT: usize = 64;

/// Maximum length of an unexpected outcome in a message, in bytes.
const SHOWN: usize = 1 << 10;

/// Maximum length of the equal text before the first difference, in bytes.
const BEFORE: usize = 64;

/// Time of a call whose test states none: midday (UTC) of 20 November 2026.
const NOW: UnixMs = UnixMs(1_795_176_000_000);

/// A call with its expected result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Name that the author gives the test.
    pub name: String,
    /// A [`CallCase`], and beside it `answer` or an [`ExpectedFault`] as `fault`.
    #[serde(flatten)]
    pub test: serde_json::Map<String, Value>,
}

/// Failure of a golden test: the test is not valid, or the plugin returns another result.
#[derive(Debug, thiserror::Error)]
#[error("the golden test `{name}`: {what}")]
pub struct Failed {
    /// Name of the test.
    pub name: String,
    /// Description of the failure, for the author.
    pub what: String,
}

/// Expected outcome of a call.
#[derive(Clone, Debug, PartialEq)]
enum Expected {
    Answer(Value),
    Fault(ExpectedFault),
}

/// Expected fault. Absent members match anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedFault {
    /// Code of the fault.
    code: String,
    /// The party that must act: `job`, `config` or `policy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blame: Option<String>,
    /// The whole message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// Result or fault of a call, and the lines that it logged.
#[derive(Debug)]
pub struct Outcome {
    result: Result<Value, Fault>,
    log: Vec<String>,
}

impl Golden {
    /// Returns whether the test states an expected outcome.
    #[must_use]
    pub fn is_written(&self) -> bool {
        ["answer", "fault"].iter().any(|key| self.test.contains_key(*key))
    }

    fn expected(&self) -> Result<Expected, Failed> {
        match (self.test.get("fault"), self.test.get("answer")) {
            (Some(Value::String(code)), None) => {
                Ok(Expected::Fault(ExpectedFault { code: code.clone(), blame: None, message: None }))
            }
            (Some(fault), None) => {
                let fault = ExpectedFault::deserialize(fault);
                fault.map(Expected::Fault).map_err(|error| self.failed(format!("its `fault`: {error}")))
            }
            (None, Some(answer)) => Ok(Expected::Answer(answer.clone())),
            (Some(_), Some(_)) => Err(self.failed("it has both `answer` and `fault`".to_owned())),
            (None, None) => Err(self.failed("it has neither `answer` nor `fault`".to_owned())),
        }
    }

    /// Writes the expected outcome into the test.
    pub fn expect(&mut self, outcome: Outcome) {
        let (key, other, value) = match outcome.result {
            Ok(answer) => ("answer", "fault", answer),
            Err(fault) => ("fault", "answer", written(&fault)),
        };
        self.test.remove(other);
        self.test.insert(key.to_owned(), value);
    }

    /// Returns the call without its expected outcome.
    ///
    /// # Errors
    /// Returns [`Failed`] if the test is not a valid call.
    pub fn case(&self) -> Result<CallCase, Failed> {
        let mut test = self.test.clone();
        test.retain(|key, _| !["answer", "fault"].contains(&key.as_str()));
        serde_json::from_value(test.into()).map_err(|error| self.failed(error.to_string()))
    }

    /// Makes the call.
    ///
    /// # Errors
    /// Returns [`Failed`] if the test is not a valid call, or if the plugin rejects its config.
    pub fn outcome(&self, plugin: &Plugin, limits: &Limits) -> Result<Outcome, Failed> {
        let called = self.case()?.call(plugin, limits, NOW).map_err(|NotACase(said)| self.failed(said))?;
        Ok(Outcome { result: called.result, log: called.usage.log })
    }

    /// Makes the call and compares its outcome with the expected one.
    ///
    /// # Errors
    /// Returns [`Failed`] if the outcome differs.
    pub fn check(&self, plugin: &Plugin, limits: &Limits) -> Result<(), Failed> {
        let expected = self.expected()?;
        let outcome = self.outcome(plugin, limits)?;
        if outcome.is(&expected) { Ok(()) } else { Err(self.failed(outcome.instead_of(&expected))) }
    }

    fn failed(&self, what: String) -> Failed {
        Failed { name: self.name.clone(), what }
    }
}

/// Converts a fault to the form of a test. A trap's message names places in the code, which move; so only a message that the plugin itself
/// wrote is kept whole.
fn written(fault: &Fault) -> Value {
    if fault.code != FaultCode::Declared {
        return fault.code.as_str().into();
    }
    json!({ "code": fault.code.as_str(), "blame": fault.blame.as_str(), "message": fault.message })
}

impl Outcome {
    fn is(&self, expected: &Expected) -> bool {
        match (&self.result, expected) {
            (Ok(answer), Expected::Answer(expected)) => answer == expected,
            (Err(fault), Expected::Fault(ExpectedFault { code, blame, message })) => {
                fault.code.as_str() == code
                    && blame.as_ref().is_none_or(|blame| fault.blame.as_str() == blame)
                    && message.as_ref().is_none_or(|message| fault.message == *message)
            }
            _ => false,
        }
    }

    /// Describes the outcome, with the plugin's log, and the expected outcome.
    fn instead_of(&self, expected: &Expected) -> String {
        let got = match &self.result {
            Ok(answer) => answer.to_string(),
            Err(fault) => {
                format!("the fault {} (blame: {}): {}", fault.code.as_str(), fault.blame.as_str(), fault.message)
            }
        };
        let logged = if self.log.is_empty() { String::new() } else { format!("; it logged: {}", self.log.join(" | ")) };
        difference(&expected.to_string(), &got) + &logged
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ExpectedFault { code, blame, message } = match self {
            Self::Answer(answer) => return write!(f, "{answer}"),
            Self::Fault(fault) => fault,
        };
        write!(f, "the fault {code}")?;
        blame.as_ref().map_or(Ok(()), |blame| write!(f, " (blame: {blame})"))?;
        message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))
    }
}

/// Describes how two texts differ: a result can be as long as a payload, so only the part at the first difference is shown.
fn difference(expected: &str, got: &str) -> String {
    let same = expected.bytes().zip(got.bytes()).take_while(|(expected, got)| expected == got).count();
    let start = if expected.len().max(got.len()) > SHOWN { same.saturating_sub(BEFORE) } else { 0 };
    let part = |text: &str| {
        let start = text.floor_char_boundary(start);
        let end = text.floor_char_boundary(start.saturating_add(SHOWN));
        let (before, after) = (if start > 0 { "…" } else { "" }, if end < text.len() { "…" } else { "" });
        format!("{before}{}{after}", &text[start..end])
    };
    format!("expected {}, got {}", part(expected), part(got))
}

/// Embeds tests in a component that has none.
#[must_use]
pub fn embed(component: &[u8], tests: &[Golden]) -> Vec<u8> {
    let mut component = component.to_vec();
    if !tests.is_empty() {
        let data = serde_json::to_vec(tests).unwrap_or_default();
        CustomSection { name: SECTION.into(), data: data.into() }.append_to_component(&mut component);
    }
    component
}

/// Returns the tests in a component. Nested modules and components are not searched.
///
/// # Errors
/// Returns [`NotACase`] if the section does not hold tests, or holds too many.
pub fn embedded(component: &[u8]) -> Result<Vec<Golden>, NotACase> {
    embedded_within(component, usize::MAX)
}

/// Returns the tests in a component, if they have at most `limit` bytes together, which are counted before they are parsed.
///
/// # Errors
/// Returns [`NotACase`] if they are larger, and as [`embedded`] does.
pub fn embedded_within(component: &[u8], limit: usize) -> Result<Vec<Golden>, NotACase> {
    let mut bytes = 0_usize;
    let mut depth = 0_usize;
    let mut tests = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| NotACase(error.to_string()))? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 && section.name() == SECTION => {
                bytes = bytes.saturating_add(section.data().len());
                if bytes > limit {
                    let text = format!("`{SECTION}` is {bytes} bytes; the limit is {limit} (`limits.embedded`)");
                    return Err(NotACase(text));
                }
                let read: Vec<Golden> = serde_json::from_slice(section.data())
                    .map_err(|error| NotACase(format!("the section `{SECTION}` cannot be read: {error}")))?;
                tests.extend(read);
            }
            _ => {}
        }
    }
    if tests.len() > GOLDEN_LIMIT {
        return Err(NotACase(format!(
            "the component has {} golden tests; at most {GOLDEN_LIMIT} are run",
            tests.len()
        )));
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Blame;

    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    fn golden(name: &str) -> Golden {
        serde_json::from_value(serde_json::json!({"name": name, "role": "judge", "answer": {"outcome": "success"}}))
            .unwrap()
    }

    #[test]
    fn tests_travel_in_the_component() {
        let tests = [golden("one"), golden("two")];
        let component = embed(EMPTY, &tests);
        assert_eq!(embedded(&component).unwrap(), tests);
        assert_eq!(embed(EMPTY, &[]), EMPTY);
        assert!(embedded(EMPTY).unwrap().is_empty());
        let said = embedded_within(&component, 10).unwrap_err().to_string();
        assert!(said.contains("the limit is 10 (`limits.embedded`)"), "{said}");
    }

    #[test]
    fn of_long_answers_the_part_is_shown_where_they_differ() {
        assert_eq!(difference("[1]", "[2]"), "expected [1], got [2]");
        let long = "ä".repeat(SHOWN * 4);
        let said = difference(&format!("{long}x{long}"), &format!("{long}y"));
        assert!(said.len() < 3 * SHOWN && said.contains("äx") && said.ends_with("äy"), "{said}");
    }

    fn outcome(result: Result<Value, Fault>) -> Outcome {
        Outcome { result, log: vec!["info: seen".to_owned()] }
    }

    fn declared(blame: Blame) -> Fault {
        Fault { code: FaultCode::Declared, blame, message: "no-key: the binding names no key".to_owned() }
    }

    #[test]
    fn a_fault_is_told_with_blame_message_and_log() {
        let of = |fault: Value| {
            let mut test = golden("t");
            test.test.remove("answer");
            test.test.insert("fault".to_owned(), fault);
            test.expected()
        };
        let whole =
            json!({"code": "policy.declared", "blame": "config", "message": "no-key: the binding names no key"});
        for expected in [json!("policy.declared"), json!({"code": "policy.declared", "blame": "config"}), whole.clone()]
        {
            let expected = of(expected).unwrap();
            assert!(outcome(Err(declared(Blame::Config))).is(&expected), "{expected}");
        }
        let other = outcome(Err(declared(Blame::Job)));
        let expected = of(whole.clone()).unwrap();
        assert!(!other.is(&expected));
        let said = other.instead_of(&expected);
        for part in ["(blame: config)", "(blame: job)", "the binding names no key", "it logged: info: seen"] {
            assert!(said.contains(part), "{said}");
        }
        let mut test = golden("t");
        test.expect(outcome(Err(declared(Blame::Config))));
        assert_eq!((test.test.get("fault"), test.test.get("answer")), (Some(&whole), None));
        test.expect(outcome(Err(Fault::of_policy(FaultCode::Trap, "in f"))));
        assert_eq!(test.test["fault"], "policy.trap");
        assert!(of(json!({"kode": "x"})).unwrap_err().to_string().contains("unknown field `kode`"));
    }

    #[test]
    fn what_is_inside_of_another_component_is_not_ours() {
        let mut outer = EMPTY.to_vec();
        let inner = embed(EMPTY, &[golden("hidden")]);
        outer.extend([4, u8::try_from(inner.len()).unwrap()]);
        outer.extend(inner);
        assert!(embedded(&outer).unwrap().is_empty());
        let both = embed(&outer, &[golden("seen")]);
        assert_eq!(embedded(&both).unwrap()[0].name, "seen");
    }

    #[test]
    fn a_section_that_is_something_else_is_refused() {
        let mut component = EMPTY.to_vec();
        CustomSection { name: SECTION.into(), data: b"nonsense".as_slice().into() }.append_to_component(&mut component);
        assert!(embedded(&component).unwrap_err().to_string().contains(SECTION));
        let many: Vec<Golden> = (0..=GOLDEN_LIMIT).map(|n| golden(&n.to_string())).collect();
        assert!(embedded(&embed(EMPTY, &many)).unwrap_err().to_string().contains("at most"));
    }
}
