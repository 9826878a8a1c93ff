//! What may be a password, by its surroundings alone: for lines that cannot be shown as they are, however they were
//! meant.

use super::similar::similar;

/// What people write behind `auth_type`: keepalived's two words, and those of other programs.
const TYPES: [&str; 10] = [
    "PASS", "AH", "NONE", "SIMPLE", "TEXT", "PLAIN", "HMAC", "MD5", "SHA1", "SHA256",
];

/// Whether a word is meant as a type of authentication, if perhaps misspelt, and so is no password.
pub(super) fn is_type(word: &str) -> bool {
    let mut types = TYPES.iter();
    types.any(|name| word.eq_ignore_ascii_case(name))
        || similar(word, ["PASS", "PASSWORD"].into_iter()).is_some()
}

/// Where a line that names something like a password stops being fit to show, however the line
/// was meant: misspelt, in a block that was skipped, or cut by a brace.
pub(super) fn secret_after(line: &[u8]) -> Option<usize> {
    let after = named_after(line)?;
    // What is listed for a line with a password may be passwords.
    let listed = line.trim_ascii_start().starts_with(b"~LST");
    let list = line.iter().position(|byte| *byte == b',');
    Some(
        list.filter(|_| listed)
            .map_or(after, |list| after.min(list)),
    )
}

/// Bytes of words that may be misspelt names of a password.
const LIKELY: std::ops::RangeInclusive<usize> = 4..=64;

fn named_after(line: &[u8]) -> Option<usize> {
    let mut from = 0;
    let mut type_follows = false;
    for word in line.split(|byte| !byte.is_ascii_graphic() || matches!(byte, b'{' | b'}')) {
        let text = String::from_utf8_lossy(word).to_ascii_lowercase();
        // Comparing costs the product of the lengths, and no other word comes near.
        let comparable = LIKELY.contains(&text.len());
        let distance = |name| strsim::osa_distance(&text, name);
        let names_type = comparable && distance("auth_type") < distance("auth_pass").min(4);
        if text.starts_with("hex:") || text.starts_with("ascii:") {
            // The key of an `auth_hmac` that was lost.
            return Some(from);
        }
        if type_follows && !text.is_empty() {
            // A password in the place of the type, or behind it.
            let shown = if is_type(&text) { word.len() } else { 0 };
            return Some(from + shown);
        }
        if names_type {
            type_follows = true;
        } else if text.contains("pass")
            || comparable && strsim::jaro_winkler(&text, "auth_pass") > 0.85
        {
            let name = word.iter().position(|byte| *byte == b'=');
            return Some(from + name.unwrap_or(word.len()));
        }
        from += word.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_up_to_where_a_password_may_be() {
        for (line, shown) in [
            ("auth_pass secret", "auth_pass"),
            (" auth_pas secret", " auth_pas"),
            ("password=secret", "password"),
            ("auth_type PASSS", "auth_type PASSS"),
            ("auth_type AH # as they do", "auth_type AH"),
            ("auth_type pass secret", "auth_type pass"),
            ("auth_type secret", "auth_type "),
            ("auth_typ SIMPLE", "auth_typ SIMPLE"),
            ("interface eth0", "interface eth0"),
            ("~LST(p, a, b) auth_pass $p", "~LST(p"),
            ("~LST(p, a, b) weight $p", "~LST(p, a, b) weight $p"),
        ] {
            let after = secret_after(line.as_bytes()).unwrap_or(line.len());
            assert_eq!(&line[..after], shown, "{line}");
        }
    }
}
