//! `docs/keywords.md` says what the tables of keywords say.

use std::{env, fs, path::Path};

use super::super::grammar;

/// What stands above the blocks.
const HEAD: &str = "\
# Keywords

Every keyword of the configuration, block by block, in keepalived's language: what it means, its values with their range
and unit, its default, and, where this version does not do what it says, what becomes of it. `xvs check --explain KEYWORD`
prints the same for one.

This page is written by a test from the tables that the parser reads by; after a change of these:
`XVS_BLESS=1 cargo test --lib documentation`.
";

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut last = None;
    for (block, facts) in grammar::keywords() {
        if last != Some(block) {
            last = Some(block);
            page += &match block {
                "" => "\n## Outside of every block\n\n".to_owned(),
                _ => format!("\n## `{block}`\n\n"),
            };
        }
        page += &format!("- `{}`: {facts}.\n", facts.name);
    }
    page
}

#[test]
fn the_page_of_keywords_is_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/keywords.md");
    let page = page();
    if env::var_os("XVS_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differs = |(ours, theirs): &(&str, &str)| ours != theirs;
    let first = page.lines().zip(written.lines()).find(differs);
    assert!(
        page == written,
        "docs/keywords.md is old (XVS_BLESS=1 writes it); first difference: {first:?}"
    );
}
