//! Attaching the steering program to an interface, and telling our programs from other people's.
//!
//! By netlink, not by a BPF link: a link goes with the process that made it, and after a crash the
//! host would see, and reset, the balancer's connections.

use std::{fmt, io, mem, os::fd::AsRawFd};

use libbpf_sys as bpf;

use super::{
    bpf::{Program, check, program_by_id, program_name, size_of_as},
    device::InterfaceSpec,
    open_error::OpenError,
};

/// The steering program's name in the kernel: by it the next start knows a leftover for ours.
pub(super) const PROGRAM_NAME: &str = "xvs_steer";

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before the kernel has made a packet buffer.
    Native,
    /// In the kernel's own receive path, on any interface (`xdpgeneric`).
    Generic,
}

impl XdpMode {
    const fn flag(self) -> u32 {
        match self {
            Self::Native => bpf::XDP_FLAGS_DRV_MODE,
            Self::Generic => bpf::XDP_FLAGS_SKB_MODE,
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// What came of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The mode that an XDP program runs in; an ingress filter has none.
    pub mode: Option<XdpMode>,
    /// Whether it took the place of a program that a previous run left.
    pub took_over: bool,
    /// What is worth telling: a mode that was refused and why, a leftover that was taken over.
    pub notes: Vec<String>,
}

/// A steering program that is attached already: one that a previous run left.
pub(super) struct Leftover {
    pub(super) mode: XdpMode,
    pub(super) id: u32,
}

/// The program of ours on `spec`'s interface, if there is one.
///
/// # Errors
/// [`OpenError::Foreign`] when the program there is somebody else's.
pub(super) fn leftover(spec: &InterfaceSpec) -> Result<Option<Leftover>, OpenError> {
    let refused = |e| OpenError::from_errno(&spec.name, "ask for its XDP program", e);
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut found: bpf::bpf_xdp_query_opts = unsafe { mem::zeroed() };
    // No further: what follows is asked for by more requests.
    found.sz = mem::offset_of!(bpf::bpf_xdp_query_opts, feature_flags) as bpf::size_t;
    // SAFETY: `found` is writable, says its size, and is alive for the call.
    check(unsafe { bpf::bpf_xdp_query(ifindex(spec), 0, &mut found) }).map_err(refused)?;
    let mut ours = None;
    for (id, mode, kind) in [
        (found.drv_prog_id, Some(XdpMode::Native), "xdp"),
        (found.skb_prog_id, Some(XdpMode::Generic), "xdpgeneric"),
        (found.hw_prog_id, None, "xdpoffload"),
    ] {
        if id == 0 {
            continue;
        }
        let name = program_name(id).map_err(refused)?;
        match (mode, name) {
            (Some(mode), Some(name)) if name == PROGRAM_NAME => ours = Some(Leftover { mode, id }),
            (_, name) => {
                return Err(OpenError::Foreign {
                    interface: spec.name.clone(),
                    found: format!(
                        "the XDP program {} (id {id})",
                        name.as_deref().unwrap_or("without a name")
                    ),
                    remedy: format!("ip link set dev {} {kind} off", spec.name),
                });
            }
        }
    }
    Ok(ours)
}

/// Attaches `program`: in place of a leftover, in one step; else in the mode wished for, or, without
/// a wish, natively and where that is refused generically.
pub(super) fn attach(
    spec: &InterfaceSpec,
    program: &Program,
    wish: Option<XdpMode>,
) -> Result<Attached, OpenError> {
    let refused = |e| OpenError::from_errno(&spec.name, "attach the steering program", e);
    let mut mode = wish.unwrap_or(XdpMode::Native);
    let mut took_over = false;
    let mut notes = Vec::new();
    if let Some(old) = leftover(spec)? {
        took_over = true;
        if wish.is_none_or(|mode| mode == old.mode) {
            replace(spec, program, &old).map_err(refused)?;
            notes.push(format!(
                "took over from a previous run in {} mode",
                old.mode
            ));
            return Ok(Attached {
                mode: Some(old.mode),
                took_over,
                notes,
            });
        }
        // The kernel runs one mode at a time, so there is no changing it without a moment without.
        detach(spec, &old).map_err(refused)?;
        notes.push(format!(
            "removed the {} steering program of a previous run",
            old.mode
        ));
    }
    match set(spec, program, mode) {
        Ok(()) => {}
        Err(e) if wish.is_some() || is_hopeless(&e) => return Err(refused(e)),
        Err(e) => {
            notes.push(format!("native: {e}"));
            mode = XdpMode::Generic;
            set(spec, program, mode).map_err(refused)?;
        }
    }
    Ok(Attached {
        mode: Some(mode),
        took_over,
        notes,
    })
}

/// Detaches `old`, and nothing that somebody put in its place meanwhile.
pub(super) fn detach(spec: &InterfaceSpec, old: &Leftover) -> io::Result<()> {
    let Some(fd) = program_by_id(old.id)? else {
        return Ok(());
    };
    let options = expecting(fd.as_raw_fd());
    let flags = old.mode.flag() | bpf::XDP_FLAGS_REPLACE;
    // SAFETY: `options` says its size and is alive for the call.
    check(unsafe { bpf::bpf_xdp_detach(ifindex(spec), flags, &options) }).map(drop)
}

fn replace(spec: &InterfaceSpec, program: &Program, old: &Leftover) -> io::Result<()> {
    let Some(fd) = program_by_id(old.id)? else {
        return set(spec, program, old.mode);
    };
    let options = expecting(fd.as_raw_fd());
    let flags = old.mode.flag() | bpf::XDP_FLAGS_REPLACE;
    // SAFETY: `options` says its size and is alive for the call; the program is loaded.
    check(unsafe { bpf::bpf_xdp_attach(ifindex(spec), program.as_raw_fd(), flags, &options) })
        .map(drop)
}

fn set(spec: &InterfaceSpec, program: &Program, mode: XdpMode) -> io::Result<()> {
    let flags = mode.flag() | bpf::XDP_FLAGS_UPDATE_IF_NOEXIST;
    // SAFETY: null options are none; the program is loaded.
    check(unsafe {
        bpf::bpf_xdp_attach(ifindex(spec), program.as_raw_fd(), flags, std::ptr::null())
    })
    .map(drop)
}

/// Options that make the kernel refuse unless `fd`'s program is the one attached.
fn expecting(fd: i32) -> bpf::bpf_xdp_attach_opts {
    // SAFETY: the structure is plain integers, for which zero is a value.
    let mut options: bpf::bpf_xdp_attach_opts = unsafe { mem::zeroed() };
    options.sz = size_of_as(&options);
    options.old_prog_fd = fd;
    options
}

/// Whether another mode would be refused for the same reason.
fn is_hopeless(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::ENODEV | libc::ENXIO)
    )
}

fn ifindex(spec: &InterfaceSpec) -> i32 {
    i32::try_from(spec.ifindex).unwrap_or(i32::MAX)
}
