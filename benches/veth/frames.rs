//! Where packets come from and where they end: `frames.c` and its programs, compiled when the bench begins.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use crate::bed::{BALANCER_CPU, SOURCE_CPU, command, path, run};

const SOURCES: [(&str, &str); 3] = [
    ("frames.h", include_str!("frames.h")),
    ("frames.bpf.c", include_str!("frames.bpf.c")),
    ("frames.c", include_str!("frames.c")),
];
const OBJECT: &str = "frames.bpf.o";
const PROGRAM: &str = "frames";
const STRICT: [&str; 4] = ["-O2", "-Wall", "-Wextra", "-Werror"];

/// Compiles it into a folder.
pub(crate) fn compile(folder: &Path) {
    for (name, text) in SOURCES {
        fs::write(folder.join(name), text).expect("the folder is ours");
    }
    let file = |name| folder.join(name).display().to_string();
    // Debian and its kin keep <asm/types.h> below the multiarch name; elsewhere this is no folder.
    let headers = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let (source, object) = (file("frames.bpf.c"), file(OBJECT));
    let bpf = [
        "-target", "bpf", "-g", &headers, "-c", &source, "-o", &object,
    ];
    run("clang", &[&STRICT[..], &bpf].concat());
    let (source, program) = (file("frames.c"), file(PROGRAM));
    let host = [&source, "-o", &program, "-lbpf", "-lpthread"];
    run("clang", &[&STRICT[..], &host].concat());
}

/// How many packets there were at a moment, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    at: u64,
}

impl Count {
    pub(crate) fn packets_since(self, before: Self) -> f64 {
        (self.packets - before.packets) as f64
    }

    /// Packets a second.
    pub(crate) fn rate_since(self, before: Self) -> f64 {
        self.packets_since(before) / (self.at - before.at) as f64 * 1e9
    }
}

/// One of the programs at work, until this is dropped.
pub(crate) struct Frames {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Frames {
    /// Starts one, compiled into `folder`, on an interface of a namespace; `plan` is what it is to do.
    pub(crate) fn start(
        folder: &Path,
        namespace: &str,
        program: &str,
        interface: &str,
        plan: &[&str],
    ) -> Self {
        let object = folder.join(OBJECT);
        // What is attached runs where packets come; this only says how many there were.
        let cpus: &[usize] = match program {
            "source" => &[SOURCE_CPU],
            _ => &[SOURCE_CPU, BALANCER_CPU],
        };
        let mut command = command(namespace, cpus, path(&folder.join(PROGRAM)));
        command.args([path(&object), program, interface]).args(plan);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it was compiled");
        let questions = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut this = Self {
            child,
            questions,
            answers,
        };
        // It is there once it answers.
        let _ = this.count();
        this
    }

    pub(crate) fn count(&mut self) -> Count {
        let mut line = String::new();
        let asked = self.questions.write_all(b"\n");
        let read = asked.and_then(|()| self.answers.read_line(&mut line));
        let mut numbers = line.split_whitespace().map(str::parse);
        match (read, numbers.next(), numbers.next()) {
            (Ok(_), Some(Ok(packets)), Some(Ok(at))) => Count { packets, at },
            _ => panic!("a program of frames.c has ended: {:?}", self.child.wait()),
        }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
