//! The rule that an API server checks and the parser: what the parser accepts the rule accepts, and common mistakes are
//! refused by both with the same words.

use std::fmt::Display;
use std::str::FromStr;

use proptest::prelude::*;
use schemars::JsonSchema;

use super::{Domain, Duration, EmailAddress, Mask, Rate};
use crate::cel::evaluation::refusals;

fn assert_both_refuse<T: FromStr<Err: Display> + JsonSchema>(texts: &[&str], message: &str) {
    for text in texts {
        let error = match text.parse::<T>() {
            Ok(_) => panic!("{text:?} was read"),
            Err(error) => error.to_string(),
        };
        let refusals = refusals::<T>(text);
        assert!(
            refusals.iter().any(|refusal| refusal == message),
            "{text:?}: {refusals:?}"
        );
        assert!(error.contains(message), "{text:?}: {error}");
    }
}

#[test]
fn mistakes_are_told_in_the_same_words() {
    assert_both_refuse::<Duration>(
        &[
            "5",
            "s",
            "-5s",
            "5 s",
            "5w",
            "1.s",
            ".5h",
            "1.2.3s",
            "1h\n",
            "1,5h",
            "P1D",
            "1.1234567s",
            "5S",
        ],
        "must be a duration: numbers with units ms, s, m, h or d, such as 90s, 1h30m or 3.5d",
    );
    assert_both_refuse::<Rate>(
        &[
            "0/h", "h", "/h", "20000", "20000/w", "-1/h", "+1/h", "1.5/h", "20000 /h", "1/hour", "1/h\n",
        ],
        "must be a rate: messages per s, m, h or d, such as 20000/h; at least 1",
    );
    assert_both_refuse::<Domain>(
        &[
            "a..b",
            ".a",
            "-a.example",
            "a-.example",
            "a b.example",
            "a@b",
            "exa\r\nmple.com",
            "*.example.com",
            "https://a",
            "a:25",
        ],
        "must be a domain name such as mail.example.com: labels of letters, digits and inner hyphens, separated by dots",
    );
    assert_both_refuse::<Mask>(
        &["a b", "a@b", "mx[12].example.com", "a\n", "/a/", "a,b"],
        "must be a name mask such as *.mail.example.com: letters, digits, hyphens, dots and the wildcards * and ?",
    );
    assert_both_refuse::<EmailAddress>(
        &[
            "ada",
            "@example.com",
            "ada@",
            "a b@example.com",
            "ada@exa mple.com",
            "a@b@example.com",
            "<ada@example.com>",
            "Ada <ada@example.com>",
            "ada@example.com, eve@example.com",
            "ada@example.com\r\nRCPT TO:<eve@example.com>",
            "\"a b\"@example.com",
            ".ada@example.com",
            "ada@[127.0.0.1]",
            "ada@-example.com",
        ],
        "must be an address such as news@example.com, without a display name or angle brackets",
    );
}

/// Pieces that names are made of, awkward ones among them: soft hyphen, ideographic full stop, full-width colon,
/// combining characters, spaces of several kinds.
fn name() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "Z",
        "9",
        "-",
        ".",
        "_",
        "ü",
        "例",
        "\u{ad}",
        "。",
        "：",
        "\u{301}",
        "\u{338}",
        "<",
        "*",
        "?",
        " ",
        "\u{a0}",
        "\u{3000}",
        "\u{200b}",
        "\u{200d}",
        "xn--",
        "xn--bcher-kva",
        "ß",
        "İ",
        "@",
        "/",
        "mail",
        "example",
        ".com",
        "\0",
    ]);
    prop_oneof![
        3 => "[a-z0-9ü]{1,5}([.-][a-zA-Z0-9例]{1,4}){0,4}[.]?",
        3 => prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat()),
        1 => any::<String>(),
        1 => ("[a-z]{50,60}", 3..6_usize).prop_map(|(label, count)| vec![label; count].join(".")),
    ]
}

proptest! {
    #[test]
    fn no_domain_is_refused(text in name()) {
        if text.parse::<Domain>().is_ok() {
            prop_assert_eq!(refusals::<Domain>(&text), Vec::<String>::new());
        }
    }

    #[test]
    fn no_mask_is_refused(text in name(), star in 0..3_usize) {
        let text = format!("{}{text}", ["", "*", "mx?."][star]);
        if text.parse::<Mask>().is_ok() {
            prop_assert_eq!(refusals::<Mask>(&text), Vec::<String>::new());
        }
    }

    #[test]
    fn no_address_is_refused(
        local_part in prop_oneof!["[-!#$%&'*+/=?^_`{|}~.a-zA-Z0-9ü]{1,20}", any::<String>()],
        domain in name(),
    ) {
        let text = format!("{local_part}@{domain}");
        if text.parse::<EmailAddress>().is_ok() {
            prop_assert_eq!(refusals::<EmailAddress>(&text), Vec::<String>::new());
        }
    }

    #[test]
    fn durations_are_refused_by_both_or_none(text in prop_oneof![
        "([0-9]{1,4}([.][0-9]{0,7})?(ms|s|m|h|d|w)?){0,4}",
        "[0-9.smhd ]{0,34}",
        any::<String>(),
    ]) {
        // Numbers of more digits can be too large to be held; only the parser sees that.
        let small = text.split(|character: char| !character.is_ascii_digit()).all(|number| number.len() <= 9);
        let refusals = refusals::<Duration>(&text);
        match text.parse::<Duration>() {
            Ok(_) => prop_assert_eq!(refusals, Vec::<String>::new()),
            Err(_) => prop_assert!(!small || !refusals.is_empty()),
        }
    }

    #[test]
    fn rates_are_refused_by_both_or_none(text in prop_oneof!["0{0,3}[0-9]{0,4}/[smhdw]", "[0-9]{1,23}/[smhd]", any::<String>()]) {
        let small = text.len() <= 20;
        let refusals = refusals::<Rate>(&text);
        match text.parse::<Rate>() {
            Ok(_) => prop_assert_eq!(refusals, Vec::<String>::new()),
            Err(_) => prop_assert!(!small || !refusals.is_empty()),
        }
    }
}
