//! What can stand between client and server.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{
    bed::{self, BALANCER_CPU, Running, SOURCE_CPU, UDP_PORT, VIP, command, mac, path, run_in},
    frames::Frames,
};

/// What stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The kernel forwards, and translates nothing.
    Kernel,
    /// An XDP program that sets the MAC addresses and redirects, nothing else.
    Redirect,
    /// xvs with this lb_kind.
    Xvs(&'static str),
    /// The same with the fast path.
    Fast(&'static str),
    /// The first with a worker that never sleeps.
    Awake(&'static str),
    /// The kernel with nftables' DNAT.
    Nftables,
    /// HAProxy in TCP mode, one thread.
    Haproxy,
}

impl Way {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Kernel => "kernel forwarding".into(),
            Self::Redirect => "redirect without look-up".into(),
            Self::Xvs(kind) => format!("xvs {kind}"),
            Self::Fast(kind) => format!("xvs {kind}, fast_path on"),
            Self::Awake(kind) => format!("xvs {kind}, spin_us 1000000"),
            Self::Nftables => "nftables DNAT".into(),
            Self::Haproxy => "HAProxy".into(),
        }
    }

    /// The address that clients use.
    pub(crate) const fn target(self) -> [u8; 4] {
        match self {
            Self::Kernel => bed::SERVER,
            Self::Haproxy => [10, 9, 0, 2],
            _ => VIP,
        }
    }

    /// Puts it there.
    pub(crate) fn start(self, folder: &Path) -> Standing {
        match self {
            Self::Kernel => Standing::Kernel,
            Self::Redirect => {
                let (out, to, from) = ("out=l1", mac("s0"), mac("l1"));
                let stations = [format!("to_mac={to}"), format!("from_mac={from}")];
                let plan = [out, &stations[0], &stations[1]];
                let _hop = Frames::start(folder, "lb", "hop", "l0", &plan);
                Standing::Redirect { _hop }
            }
            Self::Xvs(kind) | Self::Fast(kind) | Self::Awake(kind) => {
                let file = folder.join("xvs.conf");
                let own = match self {
                    Self::Fast(_) => "fast_path on",
                    Self::Awake(_) => "spin_us 1000000",
                    _ => "fast_path off",
                };
                let text = format!("{}xvs {{\n {own}\n}}\n", configuration(kind));
                fs::write(&file, text).expect("the folder is ours");
                let mut xvs = command("lb", &[SOURCE_CPU, BALANCER_CPU], env!("CARGO_BIN_EXE_xvs"));
                xvs.args(["run", "--file", path(&file)]);
                xvs.args(["--socket", path(&folder.join(SOCKET))]);
                // The worker has its processor to itself; what else there is stays with the source.
                let cpus = format!("{BALANCER_CPU}");
                xvs.args(["--io", "af-xdp", "--workers", "1", "--cpus", &cpus]);
                Standing::Process {
                    _process: Running::start(&mut xvs, &folder.join("xvs.log")),
                }
            }
            Self::Nftables => {
                let rules = format!(
                    "table ip t {{ chain p {{ type nat hook prerouting priority dstnat;
                     ip daddr 10.9.0.100 udp dport {UDP_PORT} dnat to 10.9.1.2;
                     ip daddr 10.9.0.100 tcp dport 80 dnat to 10.9.1.2; }}; }}"
                );
                run_in("lb", "nft", &[&rules]);
                Standing::Nftables
            }
            Self::Haproxy => {
                let file = folder.join("haproxy.cfg");
                let text = "global\n maxconn 4000\n nbthread 1\n\
                    defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                    listen web\n bind 10.9.0.2:80\n server one 10.9.1.2:80\n";
                fs::write(&file, text).expect("the folder is ours");
                let mut haproxy = command("lb", &[BALANCER_CPU], "haproxy");
                haproxy.args(["-db", "-f", path(&file)]);
                let log = folder.join("haproxy.log");
                Standing::Process {
                    _process: Running::start(&mut haproxy, &log),
                }
            }
        }
    }
}

/// xvs's configuration: the VIP on `l0`, one real server behind `l1`.
fn configuration(kind: &str) -> String {
    let server = |port: u16, protocol: &str| {
        format!(
            "virtual_server 10.9.0.100 {port} {{\n lb_algo rr\n lb_kind {kind}\n protocol {protocol}\n \
             real_server 10.9.1.2 {port} {{\n  weight 1\n }}\n}}\n"
        )
    };
    format!(
        "vrrp_instance V {{\n state MASTER\n interface l0\n \
         virtual_router_id 51\n priority 255\n virtual_ipaddress {{\n  10.9.0.100/32\n }}\n}}\n{}{}",
        server(80, "TCP"),
        server(UDP_PORT, "UDP")
    )
}

/// The name of xvs's admin socket.
const SOCKET: &str = "xvs.sock";

/// What `xvs list --json` says; nothing as long as it is not there.
pub(crate) fn list(folder: &Path) -> Option<Value> {
    let mut xvs = Command::new(env!("CARGO_BIN_EXE_xvs"));
    xvs.args(["list", "--json", "--socket", path(&folder.join(SOCKET))]);
    let output = xvs.output().expect("the program is there");
    let said = output.status.success().then_some(output.stdout)?;
    Some(serde_json::from_slice(&said).expect("xvs prints JSON"))
}

/// Whether xvs knows the way to all of its real servers.
pub(crate) fn is_ready(list: &Value) -> bool {
    let services = list["services"].as_array();
    let reals = services.into_iter().flatten();
    let mut reals = reals.filter_map(|one| one["reals"].as_array()).flatten();
    reals.all(|real| real["next_hop"].is_string())
}

/// What stands there, until this is dropped.
pub(crate) enum Standing {
    Kernel,
    Redirect { _hop: Frames },
    Nftables,
    Process { _process: Running },
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Self::Nftables = self {
            run_in("lb", "nft", &["delete table ip t"]);
        }
    }
}
