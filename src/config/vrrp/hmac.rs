//! `auth_hmac`: its keys are hidden before anything is said about it.

use super::super::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::{FromGiven, Given, Keyword, Table, WITH_BLOCK, line, lines, plain_keywords},
    model::{AntiReplay, AuthHmac, HmacKey, HmacMode},
    read::{self},
    tree::Stmt,
    walk::walk,
};

pub(in super::super) static TABLE: Table<AuthHmac> = Table {
    block: "auth_hmac",
    keywords: &[KEYWORDS, PLAIN],
};

plain_keywords! { static PLAIN: AuthHmac [];
    "active_key": WITH_BLOCK, "the id of the key that signs; default the first one's", later(), number(&defaults::HMAC_KEY_ID) => active_key;
    "anti_replay": WITH_BLOCK, "what tells an old advert from a new one; default time", later(), choice(AntiReplay::WORDS) => anti_replay;
    "time_window": WITH_BLOCK, "how old an advert may be; default three intervals, at least 5 s", later(), number(&defaults::HMAC_WINDOW) => time_window;
    "mode": WITH_BLOCK, "what becomes of adverts that are not signed well; default enforce", later(), choice(HmacMode::WORDS) => mode;
}

static KEYWORDS: &[Keyword<AuthHmac>] = &[lines(
    "key",
    WITH_BLOCK,
    "a key with its id; hex:, ascii: or file: say what it is written as",
)
.later()
.words("1 to 255, then the key of 32 to 64 bytes")
.read(|hmac, stmt, drafts| {
    let Some(id) = stmt.first(drafts) else { return };
    let Some(id) = read::number(id, "key", &defaults::HMAC_KEY_ID, drafts) else {
        return;
    };
    let Some(key) = stmt.args.get(1).filter(|key| !key.text.is_empty()) else {
        let message = "key needs an id and a key; it is ignored";
        drafts.push(Draft::warning(stmt.keyword.span, message));
        return;
    };
    if let Some(extra) = stmt.args.get(2) {
        // Not quoted: it may be a part of the key.
        let message = "key takes an id and a key; the rest is ignored";
        drafts.push(Draft::warning(extra.span, message));
    }
    if hmac.keys.iter().any(|(known, _)| *known == id) {
        let message = format!("key {id} is given again; the first one counts");
        drafts.push(Draft::warning(stmt.keyword.span, message));
        return;
    }
    hmac.keys.push((id, HmacKey(key.text.clone())));
})];

impl FromGiven for AntiReplay {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        given.choice(drafts).map(|at| Self::ALL[at])
    }
}

impl FromGiven for HmacMode {
    fn from_given(given: &Given<'_>, drafts: &mut Drafts) -> Option<Self> {
        given.choice(drafts).map(|at| Self::ALL[at])
    }
}

/// Hides what may be a key: every word that is no keyword, number or word of one.
fn hide_keys(stmts: &[Stmt], drafts: &mut Drafts) {
    let known = |word: &str| {
        let mut words = AntiReplay::WORDS.iter().chain(HmacMode::WORDS);
        // No key is so short.
        let is_number = word.len() <= 6 && word.bytes().all(|byte| byte.is_ascii_digit());
        is_number || words.any(|known| *known == word)
    };
    for line in stmts {
        let own = TABLE.names().any(|name| name == line.keyword.text);
        if !own {
            drafts.hide(line.keyword.span);
        }
        for (at, word) in line.args.iter().enumerate() {
            if !own || at > 0 || !known(&word.text) {
                drafts.hide(word.span);
            }
        }
        hide_keys(line.body(), drafts);
    }
}

/// Reads an `auth_hmac` block; nothing without a key.
pub(super) fn read(stmt: &Stmt, drafts: &mut Drafts) -> Option<AuthHmac> {
    stmt.no_more(0, drafts);
    hide_keys(stmt.body(), drafts);
    let mut hmac = AuthHmac::default();
    walk(&mut hmac, stmt.body(), &TABLE, drafts);
    if hmac.keys.is_empty() {
        let message = "auth_hmac without a key is ignored";
        drafts.push(Draft::warning(stmt.keyword.span, message));
        return None;
    }
    Some(hmac)
}
