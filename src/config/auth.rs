//! `authentication`: what may be the password is hidden before anything is said about it.

use std::collections::HashSet;

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{APPLIED, Keyword, Table, line},
    model::{Authentication, Password, VrrpVersion},
    read::At,
    secrets::is_type,
    similar::similar,
    source::{Span, quoted},
    support::{self, judge},
    tree::Stmt,
    walk::walk,
};

/// An `authentication` block while it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AuthDraft {
    kind: Option<At<AuthType>>,
    password: Option<Password>,
    /// Its type is none, which was said.
    is_misnamed: bool,
    block: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthType {
    Pass,
    Ah,
}

impl AuthDraft {
    /// Reads an `authentication` block.
    pub(super) fn read(&mut self, stmt: &Stmt, drafts: &mut Drafts) {
        stmt.no_more(0, drafts);
        self.block = Some(stmt.keyword.span);
        hide_secrets(stmt.body(), drafts);
        walk(self, stmt.body(), &TABLE, drafts);
    }

    /// What the block comes to; nothing where it is incomplete or the version has none.
    pub(super) fn finish(
        self,
        version: VrrpVersion,
        strict: bool,
        drafts: &mut Drafts,
    ) -> Option<Authentication> {
        let span = self.block?;
        if version == VrrpVersion::V3 || strict {
            let whose = if strict {
                "strict mode"
            } else {
                "VRRP version 3"
            };
            let message = format!("{whose} has no authentication; the block is ignored");
            let hint = "adverts go out and are taken without a password (RFC 9568 §9)";
            drafts.push(Draft::warning(span, message).hint(hint));
            return None;
        }
        if self.is_misnamed {
            return None;
        }
        let Some(kind) = self.kind else {
            let message = "authentication without auth_type is ignored";
            let hint = "auth_type PASS; a node with a password and one without both become MASTER";
            drafts.push(Draft::warning(span, message).hint(hint));
            return None;
        };
        let Some(password) = self.password else {
            let message = "authentication without auth_pass is ignored";
            let hint = "a node with a password and one without both become MASTER";
            drafts.push(Draft::warning(span, message).hint(hint));
            return None;
        };
        Some(match kind.value {
            AuthType::Pass => Authentication::Pass(password),
            AuthType::Ah => {
                judge(support::AUTH_AH, "`auth_type AH`", kind.span, drafts);
                Authentication::Ah(password)
            }
        })
    }
}

/// Hides what may be a password: every word that is neither a keyword nor a type, but for the word in the place of
/// the type where the password is known and another one.
fn hide_secrets(stmts: &[Stmt], drafts: &mut Drafts) {
    let passwords: HashSet<&str> = stmts
        .iter()
        .filter(|stmt| stmt.keyword.text == "auth_pass")
        .flat_map(|stmt| stmt.args.iter().map(|word| word.text.as_str()))
        .collect();
    for stmt in stmts {
        let keyword = stmt.keyword.text.as_str();
        if similar(keyword, TABLE.names()).is_none() {
            drafts.hide(stmt.keyword.span);
        }
        let types = similar(keyword, TABLE.names()) == Some("auth_type");
        for (at, word) in stmt.args.iter().enumerate() {
            let text = word.text.as_str();
            let known = !passwords.is_empty() && !passwords.contains(text);
            if types && at == 0 && (known || is_type(text)) {
                drafts.reveal(word.span);
            } else {
                drafts.hide(word.span);
            }
        }
        hide_secrets(stmt.body(), drafts);
    }
}

pub(super) static TABLE: Table<AuthDraft> = Table {
    block: "authentication",
    keywords: &[KEYWORDS],
};

static KEYWORDS: &[Keyword<AuthDraft>] = &[
    line(
        "auth_type",
        APPLIED,
        "how adverts are authenticated: PASS or AH",
    )
    .read(|draft, stmt, drafts| {
        let Some(word) = stmt.args.first() else {
            let message = "auth_type needs a value";
            drafts.push(Draft::warning(stmt.keyword.span, message).hint("PASS or AH"));
            return;
        };
        if let Some(extra) = stmt.args.get(1) {
            // Not quoted: it may be the password.
            let message = "auth_type takes one word; the rest is ignored";
            drafts.push(Draft::warning(extra.span, message));
        }
        let value = match word.text.as_str() {
            "PASS" => AuthType::Pass,
            "AH" => AuthType::Ah,
            _ => {
                let message = format!("{} is not a type of authentication", quoted(&word.text));
                let hint = "PASS or AH, in upper case; without a type there is no authentication";
                drafts.push(Draft::warning(word.span, message).hint(hint));
                draft.is_misnamed = true;
                return;
            }
        };
        draft.kind = Some(At {
            value,
            span: word.span,
        });
    }),
    line(
        "auth_pass",
        APPLIED,
        "the password in every advert; its first 8 bytes count",
    )
    .read(|draft, stmt, drafts| {
        let Some(word) = stmt.args.first().filter(|word| !word.text.is_empty()) else {
            let message = "auth_pass needs a password";
            drafts.push(Draft::warning(stmt.keyword.span, message));
            return;
        };
        if let Some(extra) = stmt.args.get(1) {
            let message = "auth_pass takes one word; the rest is ignored";
            let hint = "a password with blanks stands in quotes";
            drafts.push(Draft::warning(extra.span, message).hint(hint));
        }
        if word.text.len() > defaults::AUTH_PASS_BYTES {
            let message = "auth_pass is cut to its first 8 bytes";
            let hint = "an advertisement carries no more (RFC 2338 §5.3.10)";
            drafts.push(Draft::warning(word.span, message).hint(hint));
        }
        draft.password = Some(Password::new(word.text.as_bytes()));
    }),
];
