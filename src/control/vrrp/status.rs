//! What there is to show, and to leave for the guardian.

use std::{collections::BTreeSet, net::IpAddr, time::SystemTime};

use super::{
    super::api::{InstanceStatus, NamedCount},
    Instance, Vrrp,
    addresses::Place,
    last_will::FinalAdvert,
};
use crate::{
    time::Instant,
    vrrp::{Counters, InstanceId, RejectReason, State},
};

impl Vrrp {
    /// What the guardian must do when this process dies: the priority 0 adverts of each MASTER, and
    /// all addresses that are on the interfaces or about to be.
    pub(super) fn last_will(&self) -> (Vec<FinalAdvert>, BTreeSet<Place>) {
        let mut adverts = Vec::new();
        let mut places: BTreeSet<Place> = self.addresses.places().collect();
        for (id, instance) in &self.instances {
            let master = self.is_master(*id);
            if master || instance.holds {
                places.extend(self.places(instance).into_keys());
            }
            let Some(link) = self.link(instance.interface).filter(|_| master) else {
                continue;
            };
            let packets = self.router.priority_zero(*id).into_iter();
            adverts.extend(packets.map(|(destination, packet)| FinalAdvert {
                ifindex: link.index,
                destination,
                packet,
            }));
        }
        (adverts, places)
    }

    /// Sets what instances have counted to zero.
    pub(in crate::control) fn clear_counters(&mut self) {
        self.router.clear_counters();
    }

    /// How many instances are MASTER, and how many there are.
    pub(in crate::control) fn masters(&self) -> (usize, usize) {
        let all = self.instances.keys();
        let masters = all.filter(|id| self.is_master(**id)).count();
        (masters, self.instances.len())
    }

    /// The instances, for `xvs vrrp`.
    pub(in crate::control) fn status(&self, now: Instant, wall: SystemTime) -> Vec<InstanceStatus> {
        let instances = self.instances.iter();
        instances
            .filter_map(|(id, instance)| {
                let status = self.router.status(*id)?;
                let elapsed = now - status.since;
                // A clock that is not set yet must not lead to a time that cannot be written.
                let since = wall
                    .checked_sub(elapsed)
                    .map_or(SystemTime::UNIX_EPOCH, |at| at.max(SystemTime::UNIX_EPOCH));
                let master = status.master.filter(|_| status.state == State::Backup);
                let vips = instance.vips.iter();
                Some(InstanceStatus {
                    name: status.name.to_owned(),
                    interface: instance.settings.interface_name.clone(),
                    vrid: status.vrid,
                    state: status.state.to_string(),
                    reason: status.fault.map(|fault| fault.to_string()),
                    problems: self.problems(*id, instance),
                    priority: status.priority,
                    for_seconds: elapsed.as_secs(),
                    since: humantime::format_rfc3339_seconds(since).to_string(),
                    master: master.map(IpAddr::V4),
                    master_priority: status.master_priority,
                    held: self.held(instance),
                    addresses: vips.map(|vip| vip.prefix.to_string()).collect(),
                    counters: counters(status.counters),
                })
            })
            .collect()
    }

    /// What it has claimed and the kernel has given it.
    fn held(&self, instance: &Instance) -> Vec<String> {
        let held = instance.held.iter();
        let given = held.filter(|(place, _)| self.addresses.is_given(**place));
        given
            .map(|(_, vip)| format!("{} dev {}", vip.prefix, vip.device))
            .collect()
    }

    /// What a MASTER should have and has not.
    fn problems(&self, id: InstanceId, instance: &Instance) -> Vec<String> {
        let refused = self.addresses.refused(id).map(str::to_owned);
        let homeless = instance
            .vips
            .iter()
            .filter(|vip| instance.holds && self.link(vip.interface).is_none());
        let homeless = homeless.map(|vip| format!("{}: {} does not exist", vip.prefix, vip.device));
        refused.chain(homeless).collect()
    }
}

fn counters(counters: &Counters) -> Vec<NamedCount> {
    let named = [
        ("adverts-received", counters.adverts_received),
        ("adverts-sent", counters.adverts_sent),
        ("became-master", counters.became_master),
        ("released-master", counters.released_master),
        ("priority-zero-received", counters.priority_zero_received),
        ("priority-zero-sent", counters.priority_zero_sent),
        ("address-list-mismatches", counters.address_list_mismatches),
        ("late-adverts", counters.late_adverts),
        ("garp-sets", counters.garp_sets),
    ];
    let named = named
        .map(|(name, count)| (name.to_owned(), count))
        .into_iter();
    let rejected = RejectReason::ALL
        .iter()
        .map(|reason| {
            (
                format!("rejected-{}", reason.name()),
                counters.rejected(*reason),
            )
        })
        .filter(|(_, count)| *count > 0);
    named
        .chain(rejected)
        .map(|(name, count)| NamedCount { name, count })
        .collect()
}
