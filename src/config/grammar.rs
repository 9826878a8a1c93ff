//! The whole grammar: every table of keywords.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

use super::{
    address, auth, bfd, checker, file, global, host,
    keyword::{Facts, KeywordDoc},
    routes, server, settings, ssl, sync_group, tracking,
    tree::Braces,
    vrrp,
};

/// Every keyword with the block that it stands in.
pub(super) fn keywords() -> impl Iterator<Item = (&'static str, &'static Facts)> {
    (file::TABLE.facts())
        .chain(global::TABLE.facts())
        .chain(vrrp::TABLE.facts())
        .chain(auth::TABLE.facts())
        .chain(vrrp::HMAC.facts())
        .chain(address::facts())
        .chain(routes::facts())
        .chain(tracking::facts())
        .chain(sync_group::TABLE.facts())
        .chain(sync_group::TRACK_GROUP.facts())
        .chain(bfd::TABLE.facts())
        .chain(host::GARP_GROUP.facts())
        .chain(server::facts())
        .chain(checker::facts())
        .chain(ssl::facts())
        .chain(settings::facts())
}

/// Every keyword of the configuration, block by block: what documentation is made of.
pub fn reference() -> impl Iterator<Item = KeywordDoc> {
    keywords().map(|(block, facts)| facts.doc(block))
}

/// What braces can be told from.
pub(super) static BRACES: LazyLock<Braces> = LazyLock::new(braces);

fn braces() -> Braces {
    let names = |wanted: fn(&Facts) -> bool| -> HashSet<&'static str> {
        let facts = keywords().map(|(_, facts)| facts);
        let wanted = facts.filter(|facts| wanted(facts));
        wanted.map(|facts| facts.name).collect()
    };
    let anywhere = names(|facts| facts.needs_brace(false));
    let outside = file::TABLE.facts().map(|(_, facts)| facts);
    let outside = outside.filter(|facts| facts.needs_brace(true));
    let outside = outside.map(|facts| facts.name);
    let mut homes: HashMap<_, Vec<_>> = HashMap::new();
    for (block, facts) in keywords() {
        homes.entry(facts.name).or_default().push(block);
    }
    Braces {
        homes,
        outside: anywhere.iter().copied().chain(outside).collect(),
        anywhere,
        top_only: names(Facts::is_top_only),
    }
}

/// What a keyword is, a line for each block in which it stands: its meaning, what its value may be, its default, and
/// what this version does with it. Empty for a word that is none.
pub fn explain(keyword: &str) -> Vec<String> {
    let named = keywords().filter(|(_, facts)| facts.name == keyword);
    named
        .map(|(block, facts)| match block {
            "" => format!("{}: {facts}", facts.name),
            _ => format!("{} in {block}: {facts}", facts.name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse, support::Support};

    #[test]
    fn every_keyword_stands_once_in_its_block_and_says_what_it_is() {
        let mut seen = HashSet::new();
        for (block, facts) in keywords() {
            assert!(
                seen.insert((block, facts.name)),
                "{} twice in {block}",
                facts.name
            );
            let text = facts.to_string();
            assert!(
                text.len() > 8 && !text.starts_with(';'),
                "{block} {}",
                facts.name
            );
        }
        assert!(seen.len() > 300, "{}", seen.len());
    }

    #[test]
    fn a_keyword_is_explained_with_its_range_default_and_fate() {
        assert_eq!(
            explain("advert_int"),
            [
                "advert_int in vrrp_instance: time between adverts; whole seconds in version 2, hundredths in \
                 version 3; 0.01 to 255 seconds (RFC 3768 §5.3.7); default 1 s"
            ]
        );
        let weights = explain("weight");
        assert!(weights.len() > 1, "{weights:?}");
        let vmac = explain("use_vmac");
        assert!(
            vmac[0].ends_with("; not supported by this version"),
            "{vmac:?}"
        );
        let doc = reference()
            .find(|doc| doc.name == "vrrp_rlimit_rtime")
            .unwrap();
        assert_eq!(
            (doc.block, doc.newer),
            ("global_defs", Some("vrrp_rlimit_rttime"))
        );
        assert_eq!(doc.range, "2 to 4294967295 (microseconds, getrlimit(2))");
        assert_eq!(explain("vrrp_stric"), [""; 0]);
    }

    /// What becomes of every keyword is what is said about it, in the block where it stands.
    #[test]
    fn every_verdict_is_said_where_the_keyword_stands() {
        let frames = [
            ("", "", ""),
            ("global_defs", "global_defs {\n", "\n}"),
            ("vrrp_instance", "vrrp_instance V {\n", "\n}"),
            (
                "virtual_ipaddress",
                "vrrp_instance V {\nvirtual_ipaddress {\n10.0.0.1 ",
                " 1\n}\n}",
            ),
            ("virtual_server", "virtual_server 10.0.0.1 80 {\n", "\n}"),
            (
                "real_server",
                "virtual_server 10.0.0.1 80 {\nreal_server 10.0.0.2 80 {\n",
                " {\n}\n}\n}",
            ),
            (
                "TCP_CHECK",
                "virtual_server 10.0.0.1 80 {\nreal_server 10.0.0.2 80 {\nTCP_CHECK {\n",
                "\n}\n}\n}",
            ),
        ];
        for (block, before, after) in frames {
            let mut seen = 0;
            for (_, facts) in keywords().filter(|(own, _)| *own == block) {
                let name = facts.name;
                let expected = match facts.fate {
                    Support::Applied | Support::ByValue | Support::WithBlock => continue,
                    Support::Unapplied => "is not applied yet",
                    Support::Refused => "is not supported by this version",
                    Support::Irrelevant(_) => "has no effect here",
                    Support::Former(_) => "as keepalived 2.x ignores it",
                };
                let said = parse("f", format!("{before}{name}{after}").as_bytes()).report();
                let unknown = [format!("keyword `{name}`"), format!("option `{name}`")];
                assert!(!unknown.iter().any(|u| said.contains(u)), "{block}: {said}");
                let named = format!("`{name}` ");
                let verdict = |line: &str| line.contains(&named) && line.contains(expected);
                assert!(said.lines().any(verdict), "{block} {name}: {said}");
                seen += 1;
            }
            assert!(seen > 0, "{block}");
            let said = parse("f", format!("{before}zzzz{after}").as_bytes()).report();
            assert!(said.contains("unknown"), "{block}: {said}");
        }
    }
}
