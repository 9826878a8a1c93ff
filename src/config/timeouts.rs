//! Idle times: `lvs_timeouts`, and `timeouts` in `xvs`.

use std::time::Duration;

use super::{
    defaults,
    diagnostic::{Draft, Drafts},
    model::Timeout,
    read::At,
    similar::similar,
    source::{Span, quoted},
    tree::Stmt,
};

/// Idle times that were said, each with its place.
#[derive(Debug, Default)]
pub(super) struct Said(pub(super) Vec<(Timeout, At<Duration>)>);

impl Said {
    pub(super) fn say(&mut self, state: Timeout, value: Duration, span: Span) {
        self.0.push((state, At { value, span }));
    }
}

/// Reads a block of states with seconds.
pub(super) fn timeouts(said: &mut Said, stmt: &Stmt, drafts: &mut Drafts) {
    for line in stmt.body() {
        let keyword = &line.keyword;
        let mut states = Timeout::ALL.iter();
        let Some(state) = states.find(|state| state.name() == keyword.text) else {
            let message = format!("unknown state {}", quoted(&keyword.text));
            let draft = Draft::error(keyword.span, message);
            let names = Timeout::ALL.iter().map(|state| state.name());
            drafts.push(match similar(&keyword.text, names) {
                Some(meant) => draft.hint(format!("did you mean `{meant}`?")),
                None => draft.hint("a state of IPVS, like tcp_syn_recv or sctp_established"),
            });
            continue;
        };
        if line.block.is_some() {
            let message = format!("`{}` takes no block", keyword.text);
            drafts.push(Draft::error(keyword.span, message));
        }
        if said.0.iter().any(|(known, _)| known == state) {
            let message = format!("`{}` is given again; the last one counts", keyword.text);
            drafts.push(Draft::warning(keyword.span, message));
            said.0.retain(|(known, _)| known != state);
        }
        if let Some(seconds) = line.number::<u32>(&defaults::TIMEOUT, drafts) {
            said.say(*state, Duration::from_secs(seconds.into()), keyword.span);
        }
    }
}
