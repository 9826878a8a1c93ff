//! keepalived's options: on `xvs run`, and alone when the program is called `keepalived`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser};

use super::{
    USAGE, fail,
    run::{EXIT_STATUS, Name, Run, run},
    tell,
};
use crate::{
    config::Config,
    control::{
        engine,
        identity::Identity,
        load::Half,
        log::{Destination, Facility, Ident, Level},
    },
};

/// The parts of keepalived that have files with their process ids, which others look for.
const PARTS: [&str; 3] = ["keepalived", "vrrp", "checkers"];

/// xvs in the place of keepalived: runs in the background unless told otherwise
#[derive(Debug, Parser)]
#[command(name = "keepalived", infer_long_args = true, after_help = EXIT_STATUS)]
struct Arguments {
    #[command(flatten)]
    run: Run,
    /// The control socket [default: /run/xvs/control.sock, in netns/NAME there for a network namespace and in
    /// instance/NAME for an instance]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Ignored, as keepalived does
    #[arg(hide = true)]
    words: Vec<String>,
}

/// Runs as keepalived.
pub(super) fn main() -> ExitCode {
    let Arguments {
        run: options,
        socket,
        words,
    } = Arguments::parse();
    for word in words {
        tell(&format!(
            "xvs: {word} is ignored: keepalived takes only options\n"
        ));
    }
    run(&options, socket.as_deref(), Name::Keepalived)
}

/// keepalived's options, but for the name of the configuration file.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "As keepalived's")]
pub(super) struct Options {
    /// Say what is wrong with the configuration and whether it would start, and end, with the exit status of
    /// `xvs check`. With =FILE: say it there
    #[arg(short = 't', long, value_name = "FILE", require_equals = true)]
    pub(super) config_test: Option<Option<PathBuf>>,
    /// Stay in the foreground
    #[arg(short = 'n', long)]
    pub(super) dont_fork: bool,
    /// Only elect: leave the virtual servers out
    #[arg(short = 'P', long)]
    vrrp: bool,
    /// Only check and forward: leave the VRRP instances out
    #[arg(short = 'C', long)]
    check: bool,
    /// No effect: there is no BFD
    #[arg(short = 'B', long = "no_bfd")]
    no_bfd: bool,
    /// No effect: whatever is configured runs, and no more is needed
    #[arg(long)]
    all: bool,
    /// Skip lines of the configuration with another `@ID` in front than this one, or `@^ID` with this one
    #[arg(short = 'i', long, value_name = "ID")]
    pub(super) config_id: Option<String>,
    /// Run in this network namespace, as `ip netns` names it
    #[arg(short = 's', long, value_name = "NAME", value_parser = parse_namespace)]
    namespace: Option<String>,
    /// File for the process id. Called as keepalived: /run/keepalived.pid by default, else none; with a network
    /// namespace, `instance` or `use_pid_dir` in /run/keepalived, called for them
    #[arg(short = 'p', long, value_name = "FILE")]
    pid: Option<PathBuf>,
    /// Another one, of the same process. Called as keepalived: /run/vrrp.pid by default
    #[arg(short = 'r', long = "vrrp_pid", value_name = "FILE")]
    vrrp_pid: Option<PathBuf>,
    /// Another one, of the same process. Called as keepalived: /run/checkers.pid by default
    #[arg(short = 'c', long = "checkers_pid", value_name = "FILE")]
    checkers_pid: Option<PathBuf>,
    /// No effect: there is no BFD
    #[arg(short = 'b', long = "bfd_pid", value_name = "FILE")]
    bfd_pid: Option<PathBuf>,
    /// Log to standard error. Called as keepalived: with --dont-fork only
    #[arg(short = 'l', long)]
    log_console: bool,
    /// Log details, too
    #[arg(short = 'D', long, action = clap::ArgAction::Count)]
    log_detail: u8,
    /// Log the configuration at the start, passwords masked
    #[arg(short = 'd', long)]
    pub(super) dump_conf: bool,
    /// Log to syslog by this facility: 0 to 7, local0 to local7, daemon, user. Called as keepalived: daemon by default
    #[arg(short = 'S', long, value_name = "FACILITY")]
    log_facility: Option<String>,
    /// Log to a file. Default: keepalived.log beside the control socket
    #[arg(short = 'g', long, value_name = "FILE")]
    log_file: Option<Option<PathBuf>>,
    /// No effect: every line is written at once
    #[arg(long)]
    flush_log_file: bool,
    /// Do not log to syslog
    #[arg(short = 'G', long)]
    no_syslog: bool,
    /// Permission bits that new files do not get, octal
    #[arg(short = 'u', long, value_name = "MASK", value_parser = parse_umask)]
    pub(super) umask: Option<u32>,
    /// Do not end at SIGINT
    #[arg(long)]
    pub(super) ignore_sigint: bool,
    /// No effect: an instance that is not MASTER has no virtual addresses in any case
    #[arg(short = 'X', long)]
    release_vips: bool,
    /// Leave the virtual addresses when told to stop, and do not tell other routers that it stops
    #[arg(short = 'V', long)]
    pub(super) dont_release_vrrp: bool,
    /// Leave the steering program when told to stop: established connections on the fast path go on
    #[arg(short = 'I', long)]
    pub(super) dont_release_ipvs: bool,
    /// No effect: there are no processes to start again
    #[arg(short = 'R', long)]
    dont_respawn: bool,
    /// No effect: core dumps are the service manager's matter (LimitCORE=)
    #[arg(short = 'm', long)]
    core_dump: bool,
    /// No effect: core dumps are the kernel's matter (kernel.core_pattern)
    #[arg(short = 'M', long, value_name = "PATTERN", require_equals = true)]
    core_dump_pattern: Option<Option<String>>,
    /// Log each address that comes to an interface or goes from one
    #[arg(short = 'a', long)]
    pub(super) address_monitoring: bool,
    /// No effect: there is no SNMP
    #[arg(short = 'x', long)]
    snmp: bool,
    /// No effect: there is no SNMP
    #[arg(short = 'A', long, value_name = "FILE")]
    snmp_agent_socket: Option<String>,
    /// Do not start, nor reload, where a file that is to be included is missing or cannot be read
    #[arg(short = 'e', long)]
    pub(super) all_config: bool,
    /// Print the number of a signal: DATA, STATS, STATS_CLEAR, JSON, RELOAD or STOP
    #[arg(long, value_name = "NAME")]
    signum: Option<String>,
    #[arg(long, hide = true)]
    no_mem_check: bool,
    #[arg(long, hide = true, value_name = "OPTIONS", require_equals = true)]
    debug: Option<Option<String>>,
    #[arg(long, hide = true, value_name = "OPTIONS", require_equals = true)]
    perf: Option<Option<String>>,
    /// Print the version
    #[arg(short = 'v', long)]
    version: bool,
}

/// What `ip netns` can have named.
fn parse_namespace(name: &str) -> Result<String, &'static str> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err("the name of a network namespace is expected");
    }
    Ok(name.to_owned())
}

fn parse_umask(text: &str) -> Result<u32, &'static str> {
    let mask = u32::from_str_radix(text, 8).ok();
    mask.filter(|mask| *mask <= 0o777)
        .ok_or("an octal number up to 777 is expected")
}

impl Options {
    /// What is only asked and needs no configuration: done.
    pub(super) fn answer(&self) -> Option<ExitCode> {
        if self.version {
            // There keepalived prints it.
            let version = env!("CARGO_PKG_VERSION");
            tell(&format!(
                "xvs {version}, which runs configurations of keepalived\n"
            ));
            return Some(ExitCode::SUCCESS);
        }
        let name = self.signum.as_deref()?;
        Some(match engine::signal_number(name) {
            Some(number) => super::print(&format!("{number}\n")),
            None => fail(
                USAGE,
                &format!("--signum: there is no signal called {name}"),
            ),
        })
    }

    /// Which half of the configuration is to run.
    pub(super) const fn half(&self) -> Half {
        match (self.vrrp, self.check) {
            (true, false) => Half::Vrrp,
            (false, true) => Half::Servers,
            _ => Half::Both,
        }
    }

    /// What tells the daemon from others. What is said here goes before what the configuration says.
    pub(super) fn identity(&self, config: &Config) -> Identity {
        let of_file = Identity::of(config);
        Identity {
            namespace: self.namespace.clone().or(of_file.namespace),
            ..of_file
        }
    }

    /// The files for the process id.
    pub(super) fn pid_files(&self, name: Name, identity: &Identity) -> Vec<PathBuf> {
        let wanted = [&self.pid, &self.vrrp_pid, &self.checkers_pid];
        let files = wanted.into_iter().zip(PARTS).filter_map(|(wanted, part)| {
            let usual = || (name == Name::Keepalived).then(|| identity.run_file(part, "pid"));
            wanted.clone().or_else(usual)
        });
        files.collect()
    }

    /// Whether to leave the terminal.
    pub(super) fn daemonises(&self, name: Name) -> bool {
        name == Name::Keepalived && !self.dont_fork
    }

    /// Where lines go to.
    pub(super) fn destinations(&self, name: Name, socket: &Path) -> Vec<Destination> {
        let mut all = Vec::new();
        let syslog = name == Name::Keepalived || self.log_facility.is_some();
        if syslog && !self.no_syslog {
            all.push(Destination::Syslog);
        }
        if name == Name::Xvs || (self.log_console && self.dont_fork) {
            all.push(Destination::Stderr);
        }
        if let Some(file) = &self.log_file {
            let usual = || socket.with_file_name("keepalived.log");
            all.push(Destination::File(file.clone().unwrap_or_else(usual)));
        }
        all
    }

    /// Which lines, and under which name.
    pub(super) fn level(&self) -> Level {
        match self.log_detail {
            0 => Level::default(),
            _ => Level::Debug,
        }
    }

    pub(super) fn ident(&self, name: Name, identity: &Identity) -> Ident {
        match name {
            Name::Xvs if self.log_facility.is_none() => Ident::Xvs,
            // A facility is what rules of syslog daemons for keepalived go by, and these names.
            Name::Xvs | Name::Keepalived => Ident::Keepalived {
                suffix: identity.suffix(),
            },
        }
    }

    pub(super) fn facility(&self) -> Facility {
        let wanted = self.log_facility.as_deref();
        wanted
            .and_then(|text| text.parse().ok())
            .unwrap_or_default()
    }

    /// A line for each option that has no effect.
    pub(super) fn remarks(&self, name: Name) -> Vec<String> {
        let useless_console = self.log_console && self.daemonises(name);
        let table = [
            (self.no_bfd, "--no_bfd", "there is no BFD"),
            (self.bfd_pid.is_some(), "--bfd_pid", "there is no BFD"),
            (self.all, "--all", "whatever is configured runs"),
            (
                useless_console,
                "--log-console",
                "a daemon has no console; use it with --dont-fork",
            ),
            (
                self.flush_log_file,
                "--flush-log-file",
                "every line is written at once",
            ),
            (
                self.release_vips,
                "--release-vips",
                "an instance that is not MASTER has no virtual addresses in any case",
            ),
            (
                self.dont_respawn,
                "--dont-respawn",
                "there are no processes to start again",
            ),
            (
                self.core_dump,
                "--core-dump",
                "core dumps are the service manager's matter (LimitCORE=)",
            ),
            (
                self.core_dump_pattern.is_some(),
                "--core-dump-pattern",
                "core dumps are the kernel's matter (kernel.core_pattern)",
            ),
            (self.snmp, "--snmp", NO_SNMP),
            (
                self.snmp_agent_socket.is_some(),
                "--snmp-agent-socket",
                NO_SNMP,
            ),
            (self.no_mem_check, "--no-mem-check", DEBUGGING),
            (self.debug.is_some(), "--debug", DEBUGGING),
            (self.perf.is_some(), "--perf", DEBUGGING),
        ];
        let given = table.into_iter().filter(|(given, ..)| *given);
        let mut lines: Vec<String> = given
            .map(|(_, option, why)| format!("{option} has no effect here: {why}"))
            .collect();
        if let Some(Err(why)) = self.log_facility.as_deref().map(str::parse::<Facility>) {
            lines.push(format!("--log-facility: {why}; daemon is used"));
        }
        lines
    }
}

/// Why SNMP's options do nothing.
const NO_SNMP: &str = "there is no SNMP; `xvs list` and `xvs vrrp` tell the state";
/// What some of keepalived's options are for.
const DEBUGGING: &str = "it is for keepalived's own debugging";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Arguments {
        let words = words.split_whitespace();
        Arguments::try_parse_from(std::iter::once("keepalived").chain(words))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    fn options(words: &str) -> Options {
        parse(words).run.keepalived
    }

    #[test]
    fn what_people_have_in_their_sysconfig_is_understood() {
        let of_redhat = options("-D -d -S 0");
        assert!(of_redhat.dump_conf && of_redhat.daemonises(Name::Keepalived));
        assert_eq!(of_redhat.facility().code(), 16);
        assert_eq!(of_redhat.level(), Level::Debug);
        let joined = options("-nlDDdS7 -p /run/a.pid");
        assert!(joined.dont_fork && joined.log_console && joined.log_detail == 2);
        assert_eq!(joined.facility().code(), 23);
        let of_debian = parse("--dont-fork -f /etc/k.conf --log-console --log-detail");
        assert_eq!(of_debian.run.config.file, Path::new("/etc/k.conf"));
        let long = parse("--use-file /etc/k.conf --vrrp_pid=/r --checkers_pid=/c --pid /p");
        assert_eq!(long.run.config.file, Path::new("/etc/k.conf"));
        assert_eq!(
            long.run
                .keepalived
                .pid_files(Name::Keepalived, &Identity::default()),
            ["/p", "/r", "/c"].map(PathBuf::from)
        );
        // As getopt_long has it.
        assert!(options("--dont-f").dont_fork);
        assert_eq!(parse("-n stray words").words, ["stray", "words"]);
    }

    #[test]
    fn values_in_brackets_need_not_be_given() {
        let file = |words| options(words).config_test.unwrap();
        assert_eq!(file("-t"), None);
        assert_eq!(file("--config-test"), None);
        assert_eq!(file("-t=/tmp/x"), Some("/tmp/x".into()));
        assert_eq!(file("--config-test=/tmp/x"), Some("/tmp/x".into()));
        // Not the file to write to, whatever it is.
        assert_eq!(file("-t /etc/keepalived/keepalived.conf"), None);
        let socket = Path::new("/run/xvs/control.sock");
        for (words, place) in [
            ("-nG -g", "/run/xvs/keepalived.log"),
            ("-nG -g/var/k", "/var/k"),
            ("-nG --log-file=/var/k", "/var/k"),
            ("-nG -g /var/k", "/var/k"),
        ] {
            let places = options(words).destinations(Name::Keepalived, socket);
            assert_eq!(places, [Destination::File(place.into())], "{words}");
        }
    }

    #[test]
    fn a_half_is_chosen_only_if_the_other_is_not() {
        for (words, half) in [
            ("", Half::Both),
            ("-P", Half::Vrrp),
            ("--check", Half::Servers),
            ("-PC", Half::Both),
        ] {
            assert_eq!(options(words).half(), half, "{words}");
        }
    }

    #[test]
    fn lines_go_where_keepalived_sends_them() {
        use Destination::{Stderr, Syslog};
        let socket = Path::new("/s");
        for (words, name, places) in [
            ("", Name::Keepalived, &[Syslog][..]),
            ("-l", Name::Keepalived, &[Syslog]),
            ("-nl", Name::Keepalived, &[Syslog, Stderr]),
            ("-nlG", Name::Keepalived, &[Stderr]),
            ("-nG", Name::Keepalived, &[]),
            ("", Name::Xvs, &[Stderr]),
            ("-S 0", Name::Xvs, &[Syslog, Stderr]),
        ] {
            assert_eq!(options(words).destinations(name, socket), places, "{words}");
        }
        let mut config = Config::default();
        config.process.instance = Some("foo".into());
        config.process.net_namespace = Some("green".into());
        for (words, suffix) in [("-s blue", "_blue_foo"), ("", "_green_foo")] {
            let options = options(words);
            let ident = options.ident(Name::Keepalived, &options.identity(&config));
            let suffix = suffix.to_owned();
            assert_eq!(ident, Ident::Keepalived { suffix });
        }
    }

    #[test]
    fn files_for_the_process_id_are_keepalived_s_when_called_so() {
        let files = |words, name, config: &Config| {
            let options = options(words);
            options.pid_files(name, &options.identity(config))
        };
        let alone = Config::default();
        assert_eq!(files("", Name::Xvs, &alone), [""; 0].map(PathBuf::from));
        assert_eq!(files("-p /x", Name::Xvs, &alone), [PathBuf::from("/x")]);
        assert_eq!(
            files("-r /x", Name::Keepalived, &alone),
            ["/run/keepalived.pid", "/x", "/run/checkers.pid"].map(PathBuf::from)
        );
        let mut several = Config::default();
        several.process.instance = Some("foo".into());
        assert_eq!(
            files("-r /x -s blue", Name::Keepalived, &several),
            [
                "/run/keepalived/blue/keepalived_foo.pid",
                "/x",
                "/run/keepalived/blue/checkers_foo.pid"
            ]
            .map(PathBuf::from)
        );
    }

    #[test]
    fn what_has_no_meaning_is_said_once_each() {
        let all = options(
            "-B -b /b --all -X -V -I -R -m -M=x -a -x -A /x -e --flush-log-file --no-mem-check --debug --perf -l -S 9",
        );
        let remarks = all.remarks(Name::Keepalived);
        assert_eq!(remarks.len(), 15, "{remarks:#?}");
        let last = remarks.last().unwrap();
        assert!(last.starts_with("--log-facility: 0 to 7"), "{last}");
        assert_eq!(all.facility(), Facility::Daemon);
        assert_eq!(
            options("-n -l -D -d -S 0 -G").remarks(Name::Keepalived),
            [""; 0]
        );
    }

    #[test]
    fn wrong_words_are_refused() {
        for words in [
            "-s ../x",
            "-Z",
            "--no-such",
            "-u 9",
            "-u 1000",
            "-i",
            "--signum",
        ] {
            let words = words.split_whitespace();
            let parsed = Arguments::try_parse_from(std::iter::once("keepalived").chain(words));
            assert!(parsed.is_err());
        }
        assert_eq!(options("-u 077").umask, Some(0o77));
    }
}
