//! What somebody who misspelt a name may have meant.

/// Up to `count` of `candidates` that somebody who wrote `wanted` may have meant, the nearest first.
pub(crate) fn nearest<'a>(
    wanted: &str,
    candidates: impl Iterator<Item = &'a str>,
    count: usize,
) -> Vec<&'a str> {
    let lower = wanted.to_lowercase();
    let mut scored: Vec<(f64, &str)> = candidates
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score > 0.8)
        .collect();
    scored.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(right.1)));
    scored.dedup_by_key(|(_, candidate)| *candidate);
    scored.into_iter().take(count).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_come_first_and_strangers_not_at_all() {
        let names = ["trackClick", "trackExposure", "main", "track_click"];
        assert_eq!(nearest("trackclik", names.into_iter(), 2), ["trackClick", "track_click"]);
        assert!(nearest("zzz", names.into_iter(), 2).is_empty());
    }
}
