//! What a misspelt word was probably meant to be.

/// The name that `word` was probably meant to be.
pub(super) fn similar<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// No keyword is longer than half of this; comparing costs the product of the lengths.
    const LONGEST: usize = 80;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_ascii_lowercase();
    // Letters that may differ: one in a word of up to five, two in one of up to fourteen, one in
    // five of longer ones. Beyond that a guess misleads more than it helps.
    let most = match word.len() {
        0..=2 => return None,
        3..=5 => 1,
        length => (length / 5).max(2),
    };
    let close = names.filter(|name| name.len().abs_diff(word.len()) <= most);
    let scored = close.map(|name| {
        (
            strsim::osa_distance(&word, &name.to_ascii_lowercase()),
            name,
        )
    });
    let best = scored.min_by_key(|(distance, _)| *distance)?;
    (best.0 <= most).then_some(best.1)
}
