//! What this version does with what the parser understands.
//!
//! The parser and the model know keepalived's language; the program does part of it. Every keyword states its verdict
//! where it stands (`keyword`); what depends on a value is here. *Refused* is what would make the box forward or elect
//! otherwise than its owner expects; *unapplied* is what it can do without.

use std::net::IpAddr;

use super::{
    diagnostic::{Draft, Drafts, Fate},
    model::VrrpVersion,
    source::Span,
};

/// What becomes of something that was understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It works.
    Applied,
    /// Its value decides, and what reads it says so.
    ByValue,
    /// It stands in a block that has the verdict.
    WithBlock,
    /// It is reported, and the configuration is used without it.
    Unapplied,
    /// The configuration is refused.
    Refused,
    /// It is accepted and has no meaning here, for this reason; noted.
    Irrelevant(&'static str),
    /// A word of keepalived 1.x that 2.x ignores, and so do we; with what took its place.
    Former(&'static str),
}

/// Why what is refused cannot be left out.
const NOT_WITHOUT: &str = "without it this box would elect or forward otherwise than the file says";

/// Says what this version does with something that was understood: `what`, as `missing` describes it; empty where the
/// name says it all.
pub(super) fn judge_missing(
    verdict: Support,
    what: &str,
    missing: &str,
    span: Span,
    drafts: &mut Drafts,
) {
    let colon = if missing.is_empty() { "" } else { ": " };
    match verdict {
        Support::Applied | Support::ByValue | Support::WithBlock => {}
        Support::Unapplied => {
            let message = format!("{what} is not applied yet{colon}{missing}");
            drafts.push(Draft::warning(span, message).fate(Fate::Unapplied));
        }
        Support::Refused => {
            let message = format!("{what} is not supported by this version{colon}{missing}");
            let draft = Draft::error(span, message).fate(Fate::Unapplied);
            drafts.push(draft.hint(NOT_WITHOUT));
        }
        Support::Irrelevant(why) => {
            let message = format!("{what} has no effect here: {why}");
            drafts.push(Draft::note(span, message).fate(Fate::Meaningless));
        }
        Support::Former(instead) => {
            let message = format!("{what} is ignored, as keepalived 2.x ignores it");
            let draft = Draft::warning(span, message).fate(Fate::Meaningless);
            drafts.push(draft.hint(instead));
        }
    }
}

/// Says what this version does with something whose name says it all.
pub(super) fn judge(verdict: Support, what: &str, span: Span, drafts: &mut Drafts) {
    judge_missing(verdict, what, "", span, drafts);
}

/// Whether mail is sent.
pub(super) const MAIL: Support = Support::Unapplied;
/// Whether `auth_type AH` works.
pub(super) const AUTH_AH: Support = Support::Refused;
/// What becomes of `remcsum`: the option of a tunnel that leaves the checksum to the receiver.
pub(super) const REMOTE_CHECKSUM: Support = Support::Unapplied;
/// Whether other interfaces than its own bear on an instance.
pub(super) const TRACK_INTERFACE: Support = Support::Refused;
/// Whether `min_ttl` and `max_ttl` of a unicast peer are looked at.
pub(super) const PEER_TTL: Support = Support::Unapplied;

/// Whether VRRP works with addresses of this family.
pub(super) const fn vrrp_family(addr: IpAddr) -> Support {
    match addr {
        IpAddr::V4(_) => Support::Applied,
        IpAddr::V6(_) => Support::Refused,
    }
}

/// Whether this version of VRRP works.
pub(super) const fn vrrp_version(version: VrrpVersion) -> Support {
    match version {
        VrrpVersion::V2 => Support::Applied,
        VrrpVersion::V3 => Support::Refused,
    }
}
