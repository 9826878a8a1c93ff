//! The sample configurations that Debian's keepalived package brings along, and the words of its manual: what its users
//! start from.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use xvs::config;

use crate::{
    Test,
    support::{
        host::{run, tool},
        snapshot::{assert_snapshot, testdata},
    },
};

/// Where the package has its samples. A Debian that leaves documentation out does not have them;
/// `scripts/install-deps` brings them back.
const SAMPLES: &str = "/usr/share/doc/keepalived/samples";

/// The manual of the configuration.
const MANUAL: &str = "/usr/share/man/man5/keepalived.conf.5.gz";

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new("samples::each_is_read_and_nothing_is_unknown", samples),
        Test::new("samples::no_word_of_the_manual_is_forgotten", words),
        Test::new("samples::no_keyword_is_unknown_in_its_block", keywords),
        Test::new("samples::what_came_after_2_2_is_marked", later),
    ]
}

/// What keepalived itself calls unknown in its samples: members of a group that stand outside of its list.
const UNKNOWN: [(&str, &str); 2] = [("vrrp.lvs_syncd", "`VI_2`"), ("vrrp.lvs_syncd", "`VI_3`")];

fn sample_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(SAMPLES).unwrap_or_else(|e| {
        panic!("{SAMPLES}: {e}; scripts/install-deps installs what the tests need")
    });
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| name(path).starts_with("keepalived.conf."))
        .collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    let name = path.file_name().expect("a file has a name");
    name.to_string_lossy().into_owned()
}

/// The verdict about each stands in `testdata/samples.txt`: `starts`, or `refused` with every reason.
fn samples() {
    let files = sample_files();
    assert_eq!(files.len(), 25, "{files:?}");
    let mut verdicts = String::new();
    for file in files {
        let output = Command::new(env!("CARGO_BIN_EXE_xvs"))
            .args(["check", "-f"])
            .arg(&file)
            .output()
            .expect("xvs can be run");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let place = format!("{}:", file.display());
        let findings = said.lines().filter_map(|line| line.strip_prefix(&place));
        let errors: Vec<&str> = findings
            .clone()
            .filter(|it| it.contains(": error: "))
            .collect();
        let name = name(&file);
        let sample = name.trim_start_matches("keepalived.conf.");
        for finding in findings.filter(|it| it.to_lowercase().contains("unknown")) {
            let theirs = |(file, word): &(&str, &str)| *file == sample && finding.contains(word);
            assert!(UNKNOWN.iter().any(theirs), "{sample}: {finding}");
        }
        assert_eq!(
            output.status.success(),
            errors.is_empty(),
            "{sample}: {said}"
        );
        let verdict = if errors.is_empty() {
            "starts"
        } else {
            "refused"
        };
        verdicts += &format!("{sample}: {verdict}\n");
        for error in errors {
            verdicts += &format!("    {error}\n");
        }
    }
    assert_snapshot("samples.txt", &verdicts);
}

/// Whether a word is written as keywords are: small or capital letters, digits, `_` and `-`.
fn is_keyword_like(word: &str) -> bool {
    let mut letters = word.chars();
    letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// The words that the manual sets in bold within its blocks (`.nf` to `.fi`), comments aside: keywords, options, and some
/// values.
fn words_of_the_manual() -> BTreeSet<String> {
    let text = run(tool("zcat").arg(MANUAL));
    let mut words = BTreeSet::new();
    let mut is_block = false;
    for line in text.lines() {
        match line.split_whitespace().next() {
            Some(".nf") => is_block = true,
            Some(".fi") => is_block = false,
            _ => {}
        }
        if !is_block || line.starts_with('.') || line.trim_start().starts_with('#') {
            continue;
        }
        for bold in line.split("\\fB").skip(1) {
            let bold = bold.split("\\f").next().unwrap_or_default();
            let parts = bold.split(|c: char| c.is_whitespace() || "{}[]|<>(),.".contains(c));
            let parts = parts.map(|word| word.replace("\\-", "-"));
            words.extend(parts.filter(|word| is_keyword_like(word)));
        }
    }
    words
}

/// Words that the manual sets in bold and that are no keywords: `testdata/no-keywords.txt`, one a line.
fn words() {
    let path = testdata("no-keywords.txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let none: BTreeSet<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let words = words_of_the_manual();
    assert!(words.len() > 320, "{}: {words:?}", words.len());
    for word in ["virtual_router_id", "HTTP_GET", "sh-port", "notify_master"] {
        assert!(words.contains(word), "{word} is not found in {MANUAL}");
    }
    let forgotten: Vec<&str> = (words.iter().map(String::as_str))
        .filter(|word| config::explain(word).is_empty() && !none.contains(word))
        .collect();
    assert!(forgotten.is_empty(), "no keywords of xvs: {forgotten:#?}");
    let needless: Vec<&&str> = (none.iter())
        .filter(|word| !words.contains(**word) || !config::explain(word).is_empty())
        .collect();
    assert!(needless.is_empty(), "need not be listed: {needless:?}");
}

/// What stands before a statement of a block; of those behind `real_server`, within a real server.
const BLOCKS: [(&str, &str); 26] = [
    ("outside", ""),
    ("global_defs", "global_defs {"),
    ("vrrp_instance", "vrrp_instance V {"),
    ("authentication", "vrrp_instance V { authentication {"),
    ("vrrp_sync_group", "vrrp_sync_group G {"),
    ("vrrp_script", "vrrp_script S {"),
    ("track_file", "track_file F {"),
    ("track_process", "track_process P {"),
    ("track_group", "track_group G {"),
    ("bfd_instance", "bfd_instance B {"),
    ("garp_group", "garp_group {"),
    ("SSL", "SSL {"),
    ("virtual_server", VIRTUAL_SERVER),
    ("real_server", REAL_SERVER),
    ("HTTP_GET", "HTTP_GET {"),
    ("SSL_GET", "SSL_GET {"),
    ("SMTP_CHECK", "SMTP_CHECK {"),
    ("DNS_CHECK", "DNS_CHECK {"),
    ("UDP_CHECK", "UDP_CHECK {"),
    ("PING_CHECK", "PING_CHECK {"),
    ("TCP_CHECK", "TCP_CHECK {"),
    ("MISC_CHECK", "MISC_CHECK {"),
    ("BFD_CHECK", "BFD_CHECK {"),
    ("FILE_CHECK", "FILE_CHECK {"),
    ("url", "HTTP_GET { url {"),
    ("host", "SMTP_CHECK { host {"),
];

/// Where the blocks of a virtual server begin.
const VIRTUAL_SERVER: &str = "virtual_server 10.0.0.1 80 {";
/// Where the blocks of a real server begin.
const REAL_SERVER: &str = "virtual_server 10.0.0.1 80 { real_server 10.0.0.2 80 {";

/// What is said about one statement of a block. (In `authentication` an unknown word is not named: it may be a password.)
fn said_in(opening: &str, is_checker: bool, statement: &str) -> String {
    let opening = if is_checker {
        format!("{REAL_SERVER} {opening}")
    } else {
        opening.to_owned()
    };
    let closing = "}".repeat(opening.matches('{').count());
    let text = format!("{}\n{statement}\n{closing}\n", opening.replace('{', "{\n"));
    config::parse("f", text.as_bytes()).report()
}

/// `testdata/keywords.txt`, block by block: none of them is unknown where it stands.
fn keywords() {
    let path = testdata("keywords.txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let text = text.lines().filter(|line| !line.starts_with('#'));
    let text = text.collect::<Vec<_>>().join("\n");
    let mut seen = 0;
    let mut unknown = Vec::new();
    for part in text.split("\n\n") {
        let (block, words) = part.trim().split_once(": ").expect("BLOCK: KEYWORDS");
        let index = BLOCKS.iter().position(|(name, _)| *name == block);
        let index = index.unwrap_or_else(|| panic!("where is {block}?"));
        let (opening, is_checker) = (BLOCKS[index].1, index > 13);
        let told = said_in(opening, is_checker, "no_keyword 1");
        assert!(told.contains("unknown keyword"), "{block}: {told}");
        for word in words.split_whitespace() {
            let told = said_in(opening, is_checker, &format!("{word} 1"));
            if told.contains("unknown keyword") {
                unknown.push(format!("{word} in {block}"));
            }
            seen += 1;
        }
    }
    assert!(seen > 400, "{seen}");
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// Of the keywords of keepalived's blocks those that its 2.2 does not have are marked, and no others.
fn later() {
    let path = run(tool("sh").args(["-c", "command -v keepalived"]));
    let binary = fs::read(path.trim()).expect("keepalived can be read");
    let path = testdata("keywords.txt");
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let text = text.join("\n");
    let blocks = text.split("\n\n").map(|part| {
        let (block, words) = part.trim().split_once(": ").expect("BLOCK: KEYWORDS");
        let block = if block == "outside" { "" } else { block };
        (block, words.split_whitespace().collect::<BTreeSet<_>>())
    });
    let blocks: std::collections::BTreeMap<_, _> = blocks.collect();
    let in_binary = |name: &str| {
        let word = [name.as_bytes(), b"\0"].concat();
        binary.windows(word.len()).any(|bytes| bytes == word)
    };
    let (mut seen, mut wrong) = (0, Vec::new());
    for keyword in config::reference() {
        let Some(words) = blocks.get(keyword.block) else {
            continue;
        };
        let former = matches!(keyword.fate, config::Support::Former(_));
        if former || keyword.name == "xvs" {
            continue;
        }
        let is_known = words.contains(keyword.name) || in_binary(keyword.name);
        if is_known == keyword.later {
            wrong.push(format!("{} in {:?}", keyword.name, keyword.block));
        }
        seen += usize::from(keyword.later);
    }
    assert!(seen > 15, "{seen}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
