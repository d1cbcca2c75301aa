//! Finds the known name that is nearest to a misspelt one.

/// Smallest similarity of a name that is suggested: 0 is nothing in common, 1 is equal.
const MIN_SIMILARITY: f64 = 0.65;

/// Longest name that is compared, in bytes: a longer one is not a misspelling.
const MAX_LEN: usize = 100;

/// Returns the known name that `name` is most likely meant to be, if one is similar enough.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_LEN {
        return None;
    }
    let name = name.to_ascii_lowercase();
    // The first measure favors equal beginnings, the second few different letters.
    let similarity =
        |known: &str| strsim::jaro_winkler(&name, known).max(strsim::normalized_damerau_levenshtein(&name, known));
    let scored = known.map(|known| (similarity(known), known));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(score, _)| *score >= MIN_SIMILARITY).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["state", "name", "name_prefix", "created_from", "created_before"];
        for (slip, meant) in [
            ("sate", "state"),
            ("nmae", "name"),
            ("states", "state"),
            ("State", "state"),
            ("name-prefix", "name_prefix"),
        ] {
            assert_eq!(nearest(slip, known.into_iter()), Some(meant), "{slip}");
        }
        assert_eq!(nearest("xyz", known.into_iter()), None);
        assert_eq!(nearest("", known.into_iter()), None);
        assert_eq!(nearest(&"state".repeat(100), known.into_iter()), None);
    }
}
