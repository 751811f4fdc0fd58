//! "Did you mean" suggestions for misspelt names.

/// The candidate most similar to `word`, ignoring case, if close enough to be a typo: at most about
/// one letter in three differs.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Help text for a misspelt name: the closest candidate, or all of them if there are few.
pub(super) fn help(word: &str, candidates: &[&str]) -> Option<String> {
    const FEW: usize = 8;
    match closest(word, candidates.iter().copied()) {
        Some(candidate) => Some(format!("did you mean `{candidate}`?")),
        None if (1..=FEW).contains(&candidates.len()) => Some(format!("expected {}", one_of(candidates))),
        None => None,
    }
}

/// Formats candidates as `` `a` ``, `` `a` or `b` ``, or ``one of `a`, `b`, `c` ``.
pub(super) fn one_of(candidates: &[&str]) -> String {
    match candidates {
        [only] => format!("`{only}`"),
        [first, second] => format!("`{first}` or `{second}`"),
        several => format!("one of `{}`", several.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_recognised() {
        let fields = ["hosts", "gateways", "http", "tls", "tcp", "exportTo"];
        assert_eq!(closest("host", fields), Some("hosts"));
        assert_eq!(closest("gatewasy", fields), Some("gateways"));
        assert_eq!(closest("HTTP", fields), Some("http"));
        assert_eq!(closest("export_to", fields), Some("exportTo"));
        assert_eq!(closest("timeout", fields), None);
        assert_eq!(closest("", fields), None);
    }

    #[test]
    fn few_candidates_are_listed() {
        assert_eq!(
            help("x", &["exact", "prefix"]).as_deref(),
            Some("expected `exact` or `prefix`")
        );
        assert_eq!(
            help("x", &["ab", "cd", "ef"]).as_deref(),
            Some("expected one of `ab`, `cd`, `ef`")
        );
        assert_eq!(
            help("prefx", &["exact", "prefix"]).as_deref(),
            Some("did you mean `prefix`?")
        );
        assert_eq!(help("x", &[]), None);
    }
}
