//! Taking over the connections of a run before this one, and leaving them for the next.
//!
//! Of a run that died the steering program is still on the interfaces, and goes on with the flows that it has. Of one that
//! stopped in order it is gone; what it had is in a folder beside the control socket. Either way the flows go to this
//! run's tables before its program takes the interfaces.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt as _},
    path::{Path, PathBuf},
};

use super::fast;
use crate::{
    addr::{Endpoint, L4Proto},
    balance::{FlowId, Inherited, RealRef, ServiceTable},
    lvs::{LbKind, RealId},
    stats::Totals,
    sys::{
        device::InterfaceSpec,
        instance_lock::InterfaceLock,
        open_error::OpenError,
        steer::{self, FastFlow, FastPath, FastTarget, Left, LeftFlow, RealIdentity},
    },
};

/// Who may get connections, by what another run knows real servers by: the slot, and a target as far as it is needed.
pub(super) type Heirs = HashMap<RealIdentity, (u32, FastTarget)>;

/// The folder of flows that a run leaves which stops in order.
pub(in crate::control) fn folder(socket: &Path) -> PathBuf {
    beside(socket, ".flows")
}

/// Behind the name of the folder while it is written.
const NEW: &str = ".new";

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// What a run before this one left.
pub(super) struct Takeover {
    left: Option<Left>,
    folder: PathBuf,
    heirs: Heirs,
    /// What to know of it.
    note: Option<String>,
}

/// Connections that were taken over.
#[derive(Default)]
pub(super) struct Connections {
    /// Each with the worker that had it.
    pub(super) all: Vec<(Inherited, u8)>,
    /// Flows whose real server is not there any more.
    pub(super) orphans: usize,
}

impl Takeover {
    /// Looks for what was left on `interfaces`, or else in `folder`.
    pub(super) fn find(interfaces: &[InterfaceSpec], folder: PathBuf, heirs: Heirs) -> Self {
        let mut note = None;
        let mut left = None;
        for spec in interfaces {
            match Left::on(spec) {
                Ok(found) => left = left.or(found),
                // That is said when it is in the way.
                Err(OpenError::Foreign { .. }) => {}
                Err(error) => note = Some(error.to_string()),
            }
        }
        if left.is_none() {
            match read_own(&folder) {
                Ok(found) => left = Some(found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    note = Some(format!(
                        "connections in {} are not taken over: {error}",
                        folder.display()
                    ));
                }
            }
        }
        Self {
            left,
            folder,
            heirs,
            note,
        }
    }

    /// Hands the flows that were left to `path`, where there is one; what the workers are to have of them.
    pub(super) fn connections(&self, table: &ServiceTable, path: Option<&FastPath>) -> Connections {
        let mut connections = Connections::default();
        let Some(left) = &self.left else {
            return connections;
        };
        let heirs = self.by_slot(left);
        if let Some(path) = path {
            // Nothing is there that would have to move.
            path.resize(left.flows().count() as u64);
            path.settle();
            for (slot, target) in heirs.values() {
                // Known by, for who takes over from this run, and not used yet.
                path.set_target(*slot, Some(target));
                path.set_target(*slot, None);
            }
        }
        for flow in left.flows() {
            match heirs.get(&flow.flow.real) {
                Some(heir) => match hand_over(&flow, heir, table, path) {
                    Some(one) => connections.all.push((one, flow.flow.worker)),
                    None => connections.orphans += 1,
                },
                None => connections.orphans += 1,
            }
        }
        connections
    }

    /// What went through the real servers before this run. To be asked once the program that counted is off the interfaces.
    pub(super) fn totals(&self) -> HashMap<RealRef, Totals> {
        let Some(left) = &self.left else {
            return HashMap::new();
        };
        let heirs = self.by_slot(left);
        let one = |((slot, _), (to, target)): (&(u32, u32), &(u32, FastTarget))| {
            (real_ref(*to, target), fast::totals(left.totals(*slot)))
        };
        heirs.iter().map(one).collect()
    }

    /// Everything is taken over: the program goes from the `others` of the interfaces that had it, where nobody would tell
    /// it of changes any more. What to know of it.
    pub(super) fn finish(
        self,
        others: &[InterfaceSpec],
        orphans: usize,
        inherited: usize,
    ) -> Option<String> {
        // What cannot be removed is old when it is found again.
        let _ = remove(&self.folder);
        let is_its = |spec: &&InterfaceSpec| {
            let found = Left::on(spec).ok().flatten();
            found
                .zip(self.left.as_ref())
                .is_some_and(|(found, left)| left.is_same(&found))
        };
        let mut removed = Vec::new();
        for spec in others.iter().filter(is_its) {
            // Nobody else has it now.
            let lock = InterfaceLock::acquire(spec.ifindex, &spec.name);
            removed.extend(lock.ok().and_then(|_lock| steer::cleanup(spec).ok()));
        }
        let taken = (inherited > 0)
            .then(|| format!("took over {inherited} connections of the previous run"));
        let orphaned = (orphans > 0)
            .then(|| format!("{orphans} connections of it have no real server any more"));
        let notes = [self.note, taken, orphaned].into_iter().flatten();
        let notes: Vec<String> = notes.chain(removed.into_iter().flatten()).collect();
        (!notes.is_empty()).then(|| notes.join("; "))
    }

    /// The heirs of the real servers that the other run had, by slot and epoch there.
    fn by_slot(&self, left: &Left) -> HashMap<(u32, u32), (u32, FastTarget)> {
        let heirs = left.reals().filter_map(|(slot, holder, identity)| {
            Some(((slot, holder), *self.heirs.get(&identity)?))
        });
        heirs.collect()
    }
}

/// What is in the folder, if it is of the user that this runs as: whoever else may write beside the socket leaves nothing.
fn read_own(folder: &Path) -> io::Result<Left> {
    let owner = fs::symlink_metadata(folder)?;
    if !owner.is_dir() || owner.uid() != fs::metadata("/proc/self")?.uid() {
        return Err(io::Error::other("it is somebody else's"));
    }
    Left::in_folder(folder)
}

fn real_ref(slot: u32, target: &FastTarget) -> RealRef {
    RealRef {
        id: RealId(slot),
        epoch: target.epoch,
    }
}

/// A connection from a flow that was left; its flow in this run's `path`.
fn hand_over(
    left: &LeftFlow,
    (slot, target): &(u32, FastTarget),
    table: &ServiceTable,
    path: Option<&FastPath>,
) -> Option<Inherited> {
    let flow = FastFlow {
        real: (*slot, target.epoch.get()),
        ..left.flow
    };
    let real = real_ref(*slot, target);
    let mut one = Inherited {
        protocol: L4Proto::from_number(flow.protocol)?,
        client: flow.client,
        vip: Endpoint::new(flow.vip.0, flow.vip.1),
        real,
        flow: None,
        seen: left.seen,
        packets: left.packets,
    };
    if !one.is_taken(table) {
        return None;
    }
    if let Some(path) = path {
        let is_nat = table.real(real)?.method == LbKind::Nat;
        let answers_from: Option<IpAddr> = is_nat.then_some(target.addr);
        path.mark(flow.vip.0, answers_from);
        let begun = path.begin_as(&flow, left.seen, left.packets);
        one.flow = begun.and_then(|flow| FlowId::from_raw(flow.raw()));
    }
    Some(one)
}

/// Leaves flows in `folder`, all of them or none: `save` writes them.
///
/// # Errors
/// What the file system answered.
pub(super) fn leave(folder: &Path, save: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let new = beside(folder, NEW);
    remove(folder)?;
    fs::DirBuilder::new().mode(0o700).create(&new)?;
    let written = save(&new).and_then(|()| fs::rename(&new, folder));
    if written.is_err() {
        // The failure to write is the one to tell.
        let _ = remove(folder);
    }
    written
}

/// Removes such a folder, should there be one. Whether there was.
///
/// # Errors
/// What the file system answered.
pub(in crate::control) fn remove(folder: &Path) -> io::Result<bool> {
    let mut any = false;
    // The other is what a stop left that did not come to its end.
    for folder in [folder, &beside(folder, NEW)] {
        match fs::remove_dir_all(folder) {
            Ok(()) => any = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(any)
}
