//! Texts that a test compares to a file of the project.

use std::{env, fs, path::PathBuf};

/// Whether what is found is to be written as what is expected: `XVS_BLESS=1`, to be looked through before it is
/// committed.
pub(crate) fn is_blessing() -> bool {
    env::var_os("XVS_BLESS").is_some()
}

/// A file or folder of `netns-tests/testdata`.
pub(crate) fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("netns-tests/testdata")
        .join(name)
}

/// Panics when `found` is not what the file `name` of `netns-tests/testdata` holds.
pub(crate) fn assert_snapshot(name: &str, found: &str) {
    let path = testdata(name);
    if is_blessing() {
        return fs::write(&path, found).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let changed: Vec<String> = (expected.lines().map(|line| (line, "-", found)))
        .chain(found.lines().map(|line| (line, "+", &*expected)))
        .filter(|(line, _, other)| !other.lines().any(|it| it == *line))
        .map(|(line, sign, _)| format!("{sign} {line}"))
        .collect();
    assert!(
        expected == found,
        "not as in {name} (XVS_BLESS=1 writes it there):\n{}",
        changed.join("\n")
    );
}
