//! Fuzz targets: functions that take any bytes and panic if an invariant does not hold.
//!
//! libFuzzer drives them with coverage of our own crates (`script/fuzz`), and the tests below run every input of the kept corpora, so that what was
//! found once stays repaired.

mod targets {
    pub(crate) mod answers;
    pub(crate) mod components;
    pub(crate) mod requests;
    pub(crate) mod signers;
    pub(crate) mod times;
    pub(crate) mod urls;
}

use self::targets::{answers, components, requests, signers, times, urls};

/// Fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name, which is also that of the folder with its corpus.
    pub name: &'static str,
    /// Function that panics if an invariant does not hold.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 11] = [
    Target { name: "documents", run: requests::documents },
    Target { name: "queries", run: requests::queries },
    Target { name: "mounts", run: requests::mounts },
    Target { name: "cron", run: times::cron },
    Target { name: "times", run: times::times },
    Target { name: "retry_after", run: times::retry_after },
    Target { name: "urls", run: urls::urls },
    Target { name: "components", run: components::components },
    Target { name: "answers", run: answers::answers },
    Target { name: "signers", run: signers::signers },
    Target { name: "texts", run: answers::texts },
];

/// Returns the target of this name.
#[must_use]
pub fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// Splits bytes at the first line breaks, into `N` texts; missing ones are empty.
pub(crate) fn lines<const N: usize>(data: &[u8]) -> [&str; N] {
    let mut parts = data.splitn(N, |byte| *byte == b'\n').map(|part| std::str::from_utf8(part).unwrap_or_default());
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn kept_inputs_hold() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora");
        for target in TARGETS {
            let folder = corpora.join(target.name);
            let mut count = 0;
            for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
                let file = entry.unwrap().path();
                let input = std::fs::read(&file).unwrap();
                let held = std::panic::catch_unwind(|| (target.run)(&input));
                assert!(held.is_ok(), "{} does not hold for {}", target.name, file.display());
                count += 1;
            }
            assert!(count > 0, "{} has no corpus", target.name);
            (target.run)(b"");
        }
    }

    #[test]
    fn folders_of_corpora_are_those_of_targets() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora");
        for entry in std::fs::read_dir(corpora).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(find(&name).is_some(), "{name} is no target");
        }
    }
}
