//! Values: numbers, times, addresses, scripts. A value that cannot be read says what was expected.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::{is_not, tag, take_while_m_n},
    character::complete::{anychar, char, digit0, digit1, multispace1, one_of},
    combinator::{map, opt, recognize, value},
    multi::many0,
    sequence::{delimited, pair, preceded},
};

use super::{
    defaults,
    model::{AddressSet, PortRange},
};
use crate::addr::IpPrefix;

/// A number as it was read, and what was left over behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numeric<'a, T> {
    pub(super) value: T,
    /// keepalived takes `30s` for 30; so do we, and say so.
    pub(super) junk: &'a str,
}

/// A whole number in base 10 with an optional sign, as `strtol` reads it.
pub(super) fn integer(text: &str) -> Option<Numeric<'_, i64>> {
    let digits = recognize(pair(opt(one_of("+-")), digit1::<&str, ()>));
    let (junk, digits) = { digits }.parse(text).ok()?;
    // What does not fit is out of every range that a caller can ask for.
    let limit = if digits.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    let value = digits.parse().unwrap_or(limit);
    Some(Numeric { value, junk })
}

/// A time in decimal seconds, whether it was rounded to the microsecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seconds {
    pub(super) time: Duration,
    pub(super) rounded: bool,
}

/// Seconds with at most six decimals; more are rounded. `None` for what is not a number or is
/// negative.
pub(super) fn seconds(text: &str) -> Option<Numeric<'_, Seconds>> {
    let number = (
        opt(char('+')),
        digit0::<&str, ()>,
        opt(preceded(char('.'), digit0)),
    );
    let (junk, (_, whole, fraction)) = { number }.parse(text).ok()?;
    let fraction = fraction.unwrap_or_default();
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().unwrap_or(u64::MAX)
    };
    let mut micros = 0_u64;
    for index in 0..6 {
        let digit = fraction
            .as_bytes()
            .get(index)
            .map_or(0, |d| u64::from(d - b'0'));
        micros = micros * 10 + digit;
    }
    if fraction
        .as_bytes()
        .get(6)
        .is_some_and(|digit| *digit >= b'5')
    {
        micros += 1;
    }
    let time = Duration::from_secs(whole).saturating_add(Duration::from_micros(micros));
    let rounded = fraction.bytes().skip(6).any(|digit| digit != b'0');
    let value = Seconds { time, rounded };
    Some(Numeric { value, junk })
}

/// The spellings of a boolean; lower case only.
pub(super) fn boolean(text: &str) -> Option<bool> {
    match text {
        "on" | "true" | "yes" => Some(true),
        "off" | "false" | "no" => Some(false),
        _ => None,
    }
}

/// An address.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "not an IP address".to_owned())
}

/// An address, alone or with a prefix length.
pub(super) fn prefix(text: &str) -> Result<IpPrefix, String> {
    text.parse().map_err(|e: &str| e.to_owned())
}

/// A network: an address, alone or with a prefix length that covers every bit that is set.
pub(super) fn network(text: &str) -> Result<IpPrefix, String> {
    let prefix = prefix(text)?;
    let len = prefix.len().into();
    let (hosts, first) = match prefix.addr() {
        IpAddr::V4(addr) => {
            let mask = u32::MAX.checked_shr(len).unwrap_or(0);
            let hosts = u32::from(addr) & mask;
            (
                hosts != 0,
                IpAddr::from(Ipv4Addr::from(u32::from(addr) ^ hosts)),
            )
        }
        IpAddr::V6(addr) => {
            let mask = u128::MAX.checked_shr(len).unwrap_or(0);
            let hosts = u128::from(addr) & mask;
            (
                hosts != 0,
                IpAddr::from(Ipv6Addr::from(u128::from(addr) ^ hosts)),
            )
        }
    };
    if hosts {
        let meant = format!("{first}/{}", prefix.len());
        return Err(format!(
            "bits are set behind the prefix; the network is {meant}"
        ));
    }
    Ok(prefix)
}

/// `ADDR`, `ADDR/LEN`, `ADDR-ADDR`, or `ADDR-N`, where N takes the place of the last octet
/// (decimal) or of the last 16 bits of an IPv6 address (hexadecimal).
pub(super) fn addresses(text: &str) -> Result<AddressSet, String> {
    let Some((first, last)) = text.split_once('-') else {
        return network(text).map(AddressSet::Prefix);
    };
    let first = address(first)?;
    let end = match (first, last.parse::<IpAddr>()) {
        (_, Ok(last)) => Some(last),
        (IpAddr::V4(first), Err(_)) => {
            let [a, b, c, _] = first.octets();
            let part = last.parse::<u8>().ok();
            part.map(|d| Ipv4Addr::new(a, b, c, d).into())
        }
        (IpAddr::V6(first), Err(_)) => {
            let part = u16::from_str_radix(last, 16).ok();
            part.map(|part| {
                let mut parts = first.segments();
                parts[7] = part;
                IpAddr::from(parts)
            })
        }
    };
    let last = end.ok_or("the end of the range is no address and no last part of one")?;
    if first.is_ipv4() != last.is_ipv4() {
        return Err("the ends of the range are of two families".to_owned());
    }
    if last <= first {
        return Err("the end of the range is not above its start".to_owned());
    }
    Ok(AddressSet::Range { first, last })
}

/// `A` or `A-B`: ports.
pub(super) fn ports(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange {
        first: first.parse().ok()?,
        last: last.parse().ok()?,
    };
    (range.first > 0 && range.first <= range.last).then_some(range)
}

/// CPUs as the kernel lists them, `0,2-5`: in rising order, each once.
pub(super) fn cpus(text: &str) -> Option<Vec<u16>> {
    let mut named = vec![false; defaults::CPUS];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last {
            return None;
        }
        named.get_mut(first..=last)?.fill(true);
    }
    let numbered = (0..).zip(named).filter(|(_, named)| *named);
    Some(numbered.map(|(cpu, _)| cpu).collect())
}

/// The netmask of this length, 0 to 32.
pub(super) fn netmask(length: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length.into()));
    Ipv4Addr::from(mask.unwrap_or(0))
}

/// A mask as `persistence_granularity` writes it: a length, or where `longest` is that of IPv4 a
/// mask in dots whose ones come first.
pub(super) fn mask_length(text: &str, longest: u8) -> Result<u8, String> {
    let dotted = longest == 32;
    let expected = || {
        let or = if dotted { "a netmask or " } else { "" };
        format!("{or}a length of 1 to {longest}")
    };
    let length = match text.parse::<Ipv4Addr>() {
        Ok(_) if !dotted => return Err(expected()),
        Ok(mask) => {
            let bits = u32::from(mask);
            if bits.leading_ones() + bits.trailing_zeros() < 32 {
                return Err("the ones of a netmask come first".to_owned());
            }
            u8::try_from(bits.leading_ones()).map_err(|_| expected())?
        }
        Err(_) => text.parse().map_err(|_| expected())?,
    };
    if (1..=longest).contains(&length) {
        Ok(length)
    } else {
        Err(expected())
    }
}

/// The words of a script value: `'…'` and `"…"` quote and join to what touches them, and a
/// backslash escapes (`\a \b \E \f \n \r \t \v`, `\NNN` octal, `\xHH`, `\cX`, else the character
/// itself). `None` when a quote is not closed.
pub fn script_words(text: &str) -> Option<Vec<String>> {
    let blanks = value((), opt(multispace1::<&str, ()>));
    let (rest, words) = (blanks, many0(script_word))
        .parse(text)
        .ok()
        .map(|(r, w)| (r, w.1))?;
    rest.is_empty().then_some(words)
}

fn script_word(input: &str) -> IResult<&str, String, ()> {
    let plain = map(is_not(" \t\x0b\x0c\r\n\\'\""), str::to_owned);
    let single = delimited(char('\''), quoted_part("\\'"), char('\''));
    let double = delimited(char('"'), quoted_part("\\\""), char('"'));
    let part = alt((plain, escape, single, double));
    let (rest, (first, more, _)) = (part, many0(script_part), opt(multispace1)).parse(input)?;
    Ok((rest, first + &more.concat()))
}

fn script_part(input: &str) -> IResult<&str, String, ()> {
    let plain = map(is_not(" \t\x0b\x0c\r\n\\'\""), str::to_owned);
    let single = delimited(char('\''), quoted_part("\\'"), char('\''));
    let double = delimited(char('"'), quoted_part("\\\""), char('"'));
    alt((plain, escape, single, double)).parse(input)
}

/// What stands between quotes: anything but the quote, with escapes.
fn quoted_part<'a>(special: &'static str) -> impl Parser<&'a str, Output = String, Error = ()> {
    let plain = map(is_not(special), str::to_owned);
    map(many0(alt((plain, escape))), |parts| parts.concat())
}

fn escape(input: &str) -> IResult<&str, String, ()> {
    let code = |digits: &str, radix| {
        // Bytes above 127 become the Unicode character of that number; 0 would end a C string.
        let byte = u32::from_str_radix(digits, radix).unwrap_or_default() & 0xff;
        char::from_u32(byte).map_or_else(String::new, String::from)
    };
    let octal = map(
        take_while_m_n(1, 3, |c: char| ('0'..='7').contains(&c)),
        |digits| code(digits, 8),
    );
    let hex_digits = take_while_m_n(1, 2, |c: char| c.is_ascii_hexdigit());
    let hex = map(preceded(char('x'), hex_digits), |digits| code(digits, 16));
    let control = map(preceded(char('c'), anychar), |c: char| {
        char::from_u32(u32::from(c) & 0x1f).map_or_else(String::new, String::from)
    });
    let other = map(anychar, |c| {
        let named = match c {
            'a' => '\x07',
            'b' => '\x08',
            'E' => '\x1b',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            c => c,
        };
        named.to_string()
    });
    let at_end = map(pair(tag("\\"), nom::combinator::eof), |_| {
        String::from("\\")
    });
    alt((
        at_end,
        preceded(char('\\'), alt((octal, hex, control, other))),
    ))
    .parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_read_like_strtol() {
        let read = |text| integer(text).map(|n| (n.value, n.junk));
        assert_eq!(read("30"), Some((30, "")));
        assert_eq!(read("-5"), Some((-5, "")));
        assert_eq!(read("+5x"), Some((5, "x")));
        assert_eq!(read("30s"), Some((30, "s")));
        assert_eq!(read("99999999999999999999"), Some((i64::MAX, "")));
        assert_eq!(read("-99999999999999999999"), Some((i64::MIN, "")));
        for bad in ["", "x1", "-", "+", " 1"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn seconds_have_six_decimals() {
        let read = |text| seconds(text).map(|n| (n.value.time.as_micros(), n.value.rounded));
        assert_eq!(read("1"), Some((1_000_000, false)));
        assert_eq!(read("0.01"), Some((10_000, false)));
        assert_eq!(read(".5"), Some((500_000, false)));
        assert_eq!(read("2."), Some((2_000_000, false)));
        assert_eq!(read("0.0000014"), Some((1, true)));
        assert_eq!(read("0.9999995"), Some((1_000_000, true)));
        assert_eq!(read("0.1000000"), Some((100_000, false)));
        assert_eq!(seconds("5s").map(|n| n.junk), Some("s"));
        for bad in ["", ".", "-1", "x"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
        assert!(read("99999999999999999999999.9").is_some());
    }

    #[test]
    fn masks_are_lengths_or_dotted() {
        assert_eq!(mask_length("255.255.255.0", 32), Ok(24));
        assert_eq!(mask_length("255.255.255.255", 32), Ok(32));
        assert_eq!(mask_length("24", 32), Ok(24));
        assert_eq!(mask_length("64", 128), Ok(64));
        for bad in ["255.0.255.0", "0.0.0.0", "33", "0", "x", "255.255.255"] {
            assert!(mask_length(bad, 32).is_err(), "{bad}");
        }
        assert!(mask_length("255.255.255.0", 128).is_err());
    }

    #[test]
    fn address_sets_are_prefixes_or_ranges() {
        let read = |text| addresses(text).map(|set| set.to_string());
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.1.0/24", "10.0.1.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.0.0.1-20", "10.0.0.1-10.0.0.20"),
            ("10.0.0.9-10.0.1.2", "10.0.0.9-10.0.1.2"),
            ("fd00::1", "fd00::1/128"),
            ("fd00:1::/64", "fd00:1::/64"),
            ("fd00::10-ffff", "fd00::10-fd00::ffff"),
            ("fd00::10-fd01::", "fd00::10-fd01::"),
        ] {
            assert_eq!(read(text), Ok(shown.to_owned()), "{text}");
        }
        for (text, why) in [
            ("foo", "not an IP address"),
            ("10.0.0.1-", "no last part"),
            ("10.0.0.1-256", "no last part"),
            ("10.0.0.1-x", "no last part"),
            ("fd00::1-10000", "no last part"),
            ("-5", "not an IP address"),
            ("10.0.0.20-10", "not above its start"),
            ("10.0.0.20-20", "not above its start"),
            ("10.0.0.20-fd00::", "two families"),
            ("10.0.1.1/24", "the network is 10.0.1.0/24"),
            ("fd00::1/64", "the network is fd00::/64"),
            ("10.0.0.0/33", "out of range"),
        ] {
            let found = read(text).unwrap_err();
            assert!(found.contains(why), "{text}: {found}");
        }
    }

    #[test]
    fn port_ranges_and_cpu_lists_are_ordered() {
        let read = |text| ports(text).map(|range| range.to_string());
        assert_eq!(read("80"), Some("80".to_owned()));
        assert_eq!(read("80-90"), Some("80-90".to_owned()));
        assert_eq!(read("80-80"), Some("80".to_owned()));
        for bad in ["", "0", "0-5", "9-8", "80-", "-80", "65536", "1-2-3", "x"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(cpus("5,0-2,1"), Some(vec![0, 1, 2, 5]));
        for bad in [
            "",
            "1,",
            "2-1",
            "8192",
            "x",
            "0-99999",
            "1--2",
            "0-18446744073709551615",
        ] {
            assert_eq!(cpus(bad), None, "{bad}");
        }
    }

    #[test]
    fn scripts_join_quotes_and_read_escapes() {
        let read = |text| script_words(text).unwrap_or_else(|| vec!["UNCLOSED".to_owned()]);
        assert_eq!(
            read(r#""/x/y.sh a b" user grp"#),
            ["/x/y.sh a b", "user", "grp"]
        );
        assert_eq!(read(r#"  /x/y.sh  "#), ["/x/y.sh"]);
        assert_eq!(read(r#"'a b'"c d"e"#), ["a bc de"]);
        assert_eq!(read(r#"'it"s'"#), ["it\"s"]);
        assert_eq!(read(r#"a\ b \x41\102\n\q"#), ["a b", "AB\nq"]);
        assert_eq!(read(r#""a\"b" \cA"#), ["a\"b", "\u{1}"]);
        assert_eq!(read(r#"a""#), ["UNCLOSED"]);
        assert_eq!(read(r#"'a"#), ["UNCLOSED"]);
        assert_eq!(read(r#""" b"#), ["", "b"]);
        assert_eq!(read(r"a\"), ["a\\"]);
        assert!(read("").is_empty());
    }
}
