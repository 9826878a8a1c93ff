//! `lvs_sync_daemon`: an interface, then options in any order; of old without their names.

use crate::config::{
    defaults,
    diagnostic::{Draft, Drafts},
    keyword::Given,
    model::SyncDaemon,
    read::{self},
    source::quoted,
};

/// What may stand behind the keyword.
pub(super) const RANGE: &str = "INTERFACE [[inst] INSTANCE] [id 0-255] [maxlen 1-65507] [port 1-65535] \
                                [ttl 1-255] [group ADDRESS]";

/// Reads the statement.
pub(super) fn read(stmt: &Given<'_>, drafts: &mut Drafts) -> Option<SyncDaemon> {
    let mut daemon = SyncDaemon {
        interface: read::interface(stmt.first(drafts)?, drafts)?,
        instance: None,
        id: None,
        maxlen: None,
        port: None,
        ttl: None,
        group: None,
    };
    let mut words = stmt.args[1..].iter();
    while let Some(word) = words.next() {
        let name = word.text.as_str();
        if !matches!(name, "inst" | "id" | "maxlen" | "port" | "ttl" | "group") {
            // Of old: the instance, then the id, without their names.
            if daemon.instance.is_none() {
                daemon.instance = Some(name.to_owned());
            } else if daemon.id.is_none() && name.bytes().all(|c| c.is_ascii_digit()) {
                let message = format!("{} is the id; write `id {name}`", quoted(name));
                drafts.push(Draft::deprecated(word.span, message));
                daemon.id = read::number(word, "id", &defaults::SYNC_ID, drafts);
            } else {
                let message = format!("{} is ignored", quoted(name));
                drafts.push(Draft::warning(word.span, message).hint(RANGE));
            }
            continue;
        }
        let Some(value) = words.next() else {
            let message = format!("{} needs a value", quoted(name));
            drafts.push(Draft::warning(word.span, message).hint(RANGE));
            break;
        };
        match name {
            "inst" => daemon.instance = Some(value.text.clone()),
            "id" => daemon.id = read::number(value, name, &defaults::SYNC_ID, drafts),
            "maxlen" => daemon.maxlen = read::number(value, name, &defaults::SYNC_MAXLEN, drafts),
            "port" => daemon.port = read::number(value, name, &defaults::PORT, drafts),
            "ttl" => daemon.ttl = read::number(value, name, &defaults::SYNC_TTL, drafts),
            _ => daemon.group = read::address(value, drafts),
        }
    }
    Some(daemon)
}
