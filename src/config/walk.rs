//! Walking blocks: what is common to all keywords (unknown ones, repeats, braces) is done here once.

use super::{
    diagnostic::{Draft, Drafts},
    keyword::{Given, Shape, Table},
    similar::similar,
    source::quoted,
    tree::Stmt,
};

/// Applies the keywords of a block to its statements.
pub(super) fn walk<T>(
    target: &mut T,
    stmts: &[Stmt],
    table: &'static Table<T>,
    drafts: &mut Drafts,
) {
    let mut seen: Vec<&str> = Vec::new();
    for stmt in stmts {
        let keyword = stmt.keyword.text.as_str();
        let Some(rule) = table.iter().find(|rule| rule.facts.name == keyword) else {
            unknown(stmt, table.names(), drafts);
            continue;
        };
        let facts = &rule.facts;
        facts.judge(stmt, drafts);
        if !shape_fits(facts.shape, stmt, drafts) {
            continue;
        }
        if facts.shape == Shape::Line && seen.contains(&facts.name) {
            let message = format!("`{keyword}` is given again; the last one counts");
            drafts.push(Draft::warning(stmt.keyword.span, message));
        }
        if !seen.contains(&facts.name) {
            seen.push(facts.name);
        }
        (rule.apply)(target, &Given::new(stmt, facts), drafts);
    }
}

fn unknown<'a>(stmt: &Stmt, names: impl Iterator<Item = &'a str>, drafts: &mut Drafts) {
    let keyword = &stmt.keyword;
    // The word may be a password whose keyword was lost.
    let message = if drafts.is_hidden(keyword.span) {
        "unknown keyword".to_owned()
    } else {
        format!("unknown keyword {}", quoted(&keyword.text))
    };
    let mut draft = Draft::warning(keyword.span, message);
    if let Some(meant) = similar(&keyword.text, names) {
        draft = draft.hint(format!("did you mean `{meant}`?"));
    } else if stmt.block.is_some() {
        draft = draft.hint("its block is skipped");
    }
    drafts.push(draft);
}

fn shape_fits(shape: Shape, stmt: &Stmt, drafts: &mut Drafts) -> bool {
    let keyword = &stmt.keyword;
    match (shape, stmt.block.is_some()) {
        (Shape::Block, false) => {
            let message = format!("`{}` lacks its `{{`", keyword.text);
            drafts.push(Draft::warning(keyword.span, message));
            false
        }
        (Shape::Line | Shape::Lines, true) => {
            let message = format!("`{}` takes no block", keyword.text);
            let hint = "the block is skipped";
            drafts.push(Draft::warning(keyword.span, message).hint(hint));
            true
        }
        _ => true,
    }
}
