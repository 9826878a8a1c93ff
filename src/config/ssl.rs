//! `SSL`: the keys and certificates that checks over TLS show.

use super::{
    diagnostic::Drafts,
    keyword::{Facts, Keyword, Table, WITH_BLOCK, line},
    model::{Passphrase, Ssl},
    tree::Stmt,
    walk::walk,
};

/// Reads an `SSL` block, which takes the place of an earlier one.
pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Ssl {
    // What stands in a wrong place may be the password.
    stmt.args.iter().for_each(|word| drafts.hide(word.span));
    for line in stmt.body() {
        if !TABLE.names().any(|name| name == line.keyword.text) {
            let words = line.args.iter().chain([&line.keyword]);
            words.for_each(|word| drafts.hide(word.span));
        }
    }
    stmt.no_more(0, drafts);
    let mut ssl = Ssl::default();
    walk(&mut ssl, stmt.body(), &TABLE, drafts);
    ssl
}

static TABLE: Table<Ssl> = Table {
    block: "SSL",
    keywords: &[KEYWORDS],
};

static KEYWORDS: &[Keyword<Ssl>] = &[
    line("password", WITH_BLOCK, "the password of the key").read(|ssl, stmt, drafts| {
        for word in &stmt.args {
            drafts.hide(word.span);
        }
        ssl.password = stmt.text(drafts).map(Passphrase::new);
    }),
    line("ca", WITH_BLOCK, "the file with the authorities").read(|ssl, stmt, drafts| {
        ssl.ca = stmt.text(drafts);
    }),
    line("certificate", WITH_BLOCK, "the file with the certificate").read(|ssl, stmt, drafts| {
        ssl.certificate = stmt.text(drafts);
    }),
    line("key", WITH_BLOCK, "the file with the key").read(|ssl, stmt, drafts| {
        ssl.key = stmt.text(drafts);
    }),
];

/// The keywords of `SSL`.
pub(super) fn facts() -> impl Iterator<Item = (&'static str, &'static Facts)> {
    TABLE.facts()
}
